// What an answer says: numbers of word problems, the letter or word of a puzzle, a program. The
// forms are those of lm-eval 0.4 (gsm8k.yaml, bbh cot_fewshot, mbpp.yaml, humaneval.yaml).
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace crumb::eval {

// "" where the pattern does not occur.
// Strict: the first "#### NUMBER", -?[0-9.,]+ .
std::string strict_number(std::string_view answer);
// Flexible: the last (-?[$0-9.,]{2,})|(-?[0-9]+) .
std::string flexible_number(std::string_view answer);
// Without commas, dollar signs and a period at the end.
std::string plain_number(std::string_view number);
// Equal as plain numbers, letter for letter ("8" is not "8.0", as in lm-eval); "" equals nothing.
bool same_number_text(std::string_view a, std::string_view b);
// Equal in value; false where either is no number.
bool same_number_value(std::string_view a, std::string_view b);

// (?<=the answer is )(.*)(?=.) : from the first "the answer is " to one character before the line's
// end.
std::string puzzle_answer(std::string_view answer);

// MBPP: the answer (cut at "[DONE]" by the plan's stop text), set-up code, the tests.
std::string mbpp_program(std::string_view answer, std::string_view setup,
                         const std::vector<std::string>& tests);
// HumanEval: prompt + completion + tests + check(entry_point).
std::string humaneval_program(std::string_view prompt, std::string_view completion,
                              std::string_view test, std::string_view entry_point);

}  // namespace crumb::eval

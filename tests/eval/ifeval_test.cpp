#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "bench/eval/instructions.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out;
}

Record record_of(const std::string& id, const std::string& kwargs) {
  return {R"({"id": "x", "instruction_id_list": [")" + id + R"("], "kwargs": [)" + kwargs + "]}",
          "fixture", 1};
}

bool strict(const std::string& id, const std::string& kwargs, const std::string& answer) {
  const auto one = instructions_of(record_of(id, kwargs)).at(0);
  return follows_strictly(*find_checker(ifeval_checkers(), id), one.arguments, decode(answer));
}
bool loose(const std::string& id, const std::string& kwargs, const std::string& answer) {
  const auto one = instructions_of(record_of(id, kwargs)).at(0);
  return follows_loosely(*find_checker(ifeval_checkers(), id), one.arguments, decode(answer));
}

struct Case {
  std::string id, kwargs;
  std::vector<std::string> passes, fails;
};

// By hand from the published descriptions and the reference's code; all in all the reference gives
// the same verdicts.
const std::vector<Case> kCases = {
    {"keywords:existence",
     R"({"keywords": ["river", "Old Boat"]})",
     {"The RIVER took the old boat.", "rivers and old boats"},
     {"The river took the boat.", "old boat"}},
    {"keywords:forbidden_words",
     R"({"forbidden_words": ["moon"]})",
     {"moonlight on the water", "stars"},
     {"The Moon.", "a moon-lit road"}},
    {"keywords:frequency",
     R"({"keyword": "tea ", "frequency": 2, "relation": "at least"})",
     {"Tea and teapot", "tea, tea, tea"},
     {"one tea", "coffee"}},
    {"keywords:frequency",
     R"({"keyword": "aa", "frequency": 2, "relation": "less than"})",
     {"aaa", "b"},
     {"aaaa"}},
    {"keywords:letter_frequency",
     R"({"letter": "Q", "let_frequency": 2, "let_relation": "at least"})",
     {"Quick question"},
     {"quick answer"}},
    {"keywords:letter_frequency",
     R"({"letter": "e", "let_frequency": 1, "let_relation": "less than"})",
     {"no such thing as this, only o"},
     {"yes, E"}},
    {"language:response_language",
     R"({"language": "de"})",
     {"Der Hund ist nicht im Haus, weil er mit den Kindern spielt.", "12345 !!"},
     {"The dog is not in the house because it plays with the children."}},
    {"language:response_language",
     R"({"language": "hi"})",
     {"कुत्ता घर में है और बच्चे उसके साथ खेल रहे हैं।"},
     {"कुत्रा घरात आहे आणि मुले खेळत आहेत.", "A dog."}},
    {"length_constraints:number_sentences",
     R"({"num_sentences": 3, "relation": "at least"})",
     {"One. Two! Three?", "1. Apples are red. Pears are not."},
     {"Dr. Smith met Mr. Jones. They talked.", "Version 3.14 is out. Get it"}},
    {"length_constraints:number_sentences",
     R"({"num_sentences": 2, "relation": "less than"})",
     {"Only one here"},
     {"First here. Then there."}},
    {"length_constraints:number_paragraphs",
     R"({"num_paragraphs": 2})",
     {"one\n***\ntwo", "***\none\n***\ntwo\n***"},
     {"one", "one\n***\n\n***\ntwo", "one\n\ntwo"}},
    {"length_constraints:number_words",
     R"({"num_words": 3, "relation": "at least"})",
     {"it's two", "a_b c d", "नमस्ते मेरे दोस्त"},
     {"two-words", "नमस्ते दोस्त"}},
    {"length_constraints:nth_paragraph_first_word",
     R"({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Sea"})",
     {"first\n\nsea, and more", "first\n\n'\"SEA\" he said"},
     {"first\n\nland", "first\nsea", "first\n\nsea\n\nthird", "seas\n\nseaside"}},
    {"detectable_content:number_placeholders",
     R"({"num_placeholders": 2})",
     {"[name] lives in [town]", "[a [b] and [c]"},
     {"[name]", "[na\nme] [x]"}},
    {"detectable_content:postscript",
     R"({"postscript_marker": "P.S."})",
     {"Bye.\nP.S. Write soon", "p. s. soon"},
     {"PS write", "Bye P.S"}},
    {"detectable_content:postscript",
     R"({"postscript_marker": "P.P.S"})",
     {"P.P.S. more", "P. P. S more"},
     {"P.S. more"}},
    {"detectable_format:number_bullet_lists",
     R"({"num_bullets": 2})",
     {"* one\n* two", "intro\n  - one\n- two", "* one\n- two"},
     {"* one", "** one\n** two", "* one\n* two\n* three", "*\n* swallowed"}},
    {"detectable_format:constrained_response",
     "{}",
     {"My answer is no.", "Well. My answer is maybe. So be it."},
     {"my answer is yes.", "My answer is yes"}},
    {"detectable_format:number_highlighted_sections",
     R"({"num_highlights": 2})",
     {"*one* and *two*", "**one** and *two*"},
     {"*one*", "**one** only", "* *\n*two*", "*one\ntwo*"}},
    {"detectable_format:multiple_sections",
     R"({"section_spliter": "SECTION ", "num_sections": 2})",
     {"SECTION 1\nab\nSECTION 2\ncd", "SECTION1 SECTION2"},
     {"SECTION 1", "Section 1\nSection 2", "SECTION one SECTION two"}},
    {"detectable_format:json_format",
     "{}",
     {R"({"a": [1, 2.5, null]})", "```json\n[1]\n```", " 7 "},
     {"{'a': 1}", "{\"a\": 1} and more", "```\n```"}},
    {"detectable_format:title",
     "{}",
     {"<<A day>>\ntext", "see << x >> there", "<<<y>>>"},
     {"<A day>", "<< >>", "<<a\nb>>"}},
    {"combination:two_responses",
     "{}",
     {"one******two", "******one******two******"},
     {"one", "one******one", "one************two", "a******b******c"}},
    {"combination:repeat_prompt",
     R"({"prompt_to_repeat": "Say it."})",
     {"say it. I said it.", "  SAY IT."},
     {"I said: Say it."}},
    {"startend:end_checker",
     R"({"end_phrase": "That is all."})",
     {"Hi. that is ALL.", "\"So. That is all.\" "},
     {"That is all. Bye"}},
    {"startend:quotation", "{}", {"\"all of it\"", " \"\" "}, {"\"", "\"half", "'it'"}},
    {"change_case:capital_word_frequency",
     R"({"capital_frequency": 3, "capital_relation": "at least"})",
     {"NASA and ESA and I", "CAN'T STOP"},
     {"NASA and Esa and me", "A1b B2c"}},
    {"change_case:capital_word_frequency",
     R"({"capital_frequency": 2, "capital_relation": "less than"})",
     {"only ONE"},
     {"ONE TWO"}},
    {"change_case:english_capital",
     "{}",
     {"THE DOG IS IN THE HOUSE WITH YOU."},
     {"THE DOG IS IN THE house.", "DER HUND IST NICHT IM HAUS UND DIE KATZE AUCH NICHT."}},
    {"change_case:english_lowercase",
     "{}",
     {"the dog is in the house with you."},
     {"the Dog is in the house.", "der hund ist nicht im haus und die katze auch nicht."}},
    {"punctuation:no_comma", "{}", {"none; at all"}, {"one, at least"}},
};

TEST(Ifeval, EveryKindPassesAndFailsByHand) {
  std::set<std::string> seen;
  for (const Case& one : kCases) {
    seen.insert(one.id);
    ASSERT_NE(find_checker(ifeval_checkers(), one.id), nullptr) << one.id;
    for (const auto& answer : one.passes)
      EXPECT_TRUE(strict(one.id, one.kwargs, answer)) << one.id << ": " << escaped(answer);
    for (const auto& answer : one.fails)
      EXPECT_FALSE(strict(one.id, one.kwargs, answer)) << one.id << ": " << escaped(answer);
  }
  EXPECT_EQ(seen.size(), 25u);
  EXPECT_EQ(ifeval_checkers().size(), 25u);
}

TEST(Ifeval, BlankAnswersFollowNothing) {
  for (const Case& one : kCases)
    for (const char* blank : {"", " \n\t", "\xE2\x80\x83"})
      EXPECT_FALSE(strict(one.id, one.kwargs, blank) || loose(one.id, one.kwargs, blank)) << one.id;
}

TEST(Ifeval, LooseDropsFirstAndLastLinesAndStars) {
  EXPECT_FALSE(strict("startend:quotation", "{}", "Sure:\n\"it\"\nBye"));
  EXPECT_TRUE(loose("startend:quotation", "{}", "Sure:\n\"it\"\nBye"));
  EXPECT_TRUE(loose("startend:quotation", "{}", "Sure:\n\"it\""));
  EXPECT_TRUE(loose("startend:quotation", "{}", "\"it\"\nBye"));
  EXPECT_TRUE(loose("startend:quotation", "{}", "**\"it\"**"));
  EXPECT_FALSE(loose("startend:quotation", "{}", "Sure:\nHere:\n\"it\""));
  // Whatever passes strictly passes loosely.
  for (const Case& one : kCases)
    for (const auto& answer : one.passes) EXPECT_TRUE(loose(one.id, one.kwargs, answer)) << one.id;
}

TEST(Ifeval, WrongArgumentsAreErrors) {
  EXPECT_THROW(strict("keywords:existence", "{}", "x"), FormatError);
  EXPECT_THROW(strict("keywords:existence", R"({"keywords": "river"})", "x"), FormatError);
  EXPECT_THROW(strict("keywords:existence", R"({"keywords": [1]})", "x"), FormatError);
  EXPECT_THROW(strict("length_constraints:number_words",
                      R"({"num_words": 1.5, "relation": "at least"})", "x"),
               FormatError);
  EXPECT_THROW(
      strict("length_constraints:number_words", R"({"num_words": 5, "relation": "around"})", "x"),
      FormatError);
  EXPECT_THROW(strict("length_constraints:number_words", R"({"num_words": 1e300})", "x"),
               FormatError);
  EXPECT_THROW(strict("keywords:letter_frequency",
                      R"({"letter": "ab", "let_frequency": 1, "let_relation": "at least"})", "x"),
               FormatError);
  EXPECT_THROW(strict("punctuation:no_comma", R"({"deep": {}})", "x"), FormatError);
  EXPECT_THROW(instructions_of(record_of("a", "{}, {}")), FormatError);
  EXPECT_THROW(instructions_of(record_of("a", "[]")), FormatError);
  // Nulls, zeros and empty texts count as absent, as in lm-eval.
  EXPECT_TRUE(strict("punctuation:no_comma", R"({"num_words": null, "letter": "", "n": 0})", "x"));
  EXPECT_EQ(find_checker(ifeval_checkers(), "keywords:nothing"), nullptr);
}

TEST(Ifeval, HostileAnswersEnd) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  std::vector<std::string> hostile = {bytes,
                                      std::string(20'000, '*'),
                                      std::string(20'000, '['),
                                      std::string(20'000, '<'),
                                      std::string(20'000, '.'),
                                      std::string(20'000, '"'),
                                      std::string(5'000, '-') + "\n",
                                      std::string(20'000, '\n') + "*",
                                      std::string(1, '\0') + "x"};
  std::string dots;
  for (int i = 0; i < 5'000; ++i) dots += ". ";
  hostile.push_back(dots);
  for (const Case& one : kCases)
    for (const auto& answer : hostile) {
      strict(one.id, one.kwargs, answer);
      loose(one.id, one.kwargs, answer);
    }
}

}  // namespace
}  // namespace crumb::eval

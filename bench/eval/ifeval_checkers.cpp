// IFEval's 25 instructions, with the meaning of Google's instructions.py as lm-eval 0.4.13 has it,
// oddities included. Regular expressions are written out by hand; where a keyword of the data would
// be a pattern there ("a.b"), it is the literal text here. Further differences: sentences.h,
// language.h; JSON's NaN and Infinity, which Python takes, are refused; a letter to count that is
// no letter is counted as it is (the reference draws a random one).
#include <algorithm>

#include "bench/eval/instructions.h"
#include "bench/eval/language.h"
#include "bench/eval/sentences.h"
#include "models/errors.h"
#include "models/json.h"

namespace crumb::eval {
namespace {

bool contains(TextView text, TextView part) { return text.find(part) != TextView::npos; }
std::size_t skip_space(TextView text, std::size_t i) {
  while (i < text.size() && is_space(text[i])) ++i;
  return i;
}
std::size_t skip_one_space(TextView text, std::size_t i) {
  return i < text.size() && is_space(text[i]) ? i + 1 : i;
}

// keywords ----------------------------------------------------------------------------------------

bool keyword_existence(const Arguments& a, TextView answer) {
  const auto keywords = a.texts("keywords");
  return std::all_of(keywords.begin(), keywords.end(), [&](const Text& keyword) {
    return find_ignoring_case(answer, keyword) != TextView::npos;
  });
}
bool forbidden_words(const Arguments& a, TextView answer) {
  const auto words = a.texts("forbidden_words");
  return std::none_of(words.begin(), words.end(),
                      [&](const Text& word) { return has_whole_word(answer, word); });
}
bool keyword_frequency(const Arguments& a, TextView answer) {
  const Text keyword = a.text("keyword");
  return compare(count_ignoring_case(answer, strip(keyword)), a, "relation",
                 a.integer("frequency"));
}
bool letter_frequency(const Arguments& a, TextView answer) {
  const Text letter = lower(strip(a.text("letter")));
  if (letter.size() != 1)
    throw FormatError("instruction argument letter (expected one character, found " +
                      std::to_string(letter.size()) + ")");
  const Text small = lower(answer);
  return compare(std::count(small.begin(), small.end(), letter[0]), a, "let_relation",
                 a.integer("let_frequency"));
}

// length_constraints ------------------------------------------------------------------------------

bool number_words(const Arguments& a, TextView answer) {
  return compare(std::ssize(words(answer)), a, "relation", a.integer("num_words"));
}
bool number_sentences(const Arguments& a, TextView answer) {
  return compare(count_sentences(answer), a, "relation", a.integer("num_sentences"));
}
// Between "***": a blank part is no paragraph at the ends and an error in the middle.
bool number_paragraphs(const Arguments& a, TextView answer) {
  const auto parts = split(answer, U"***");
  auto count = std::ssize(parts);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!strip(parts[i]).empty()) continue;
    if (i != 0 && i + 1 != parts.size()) return false;
    --count;
  }
  return count == a.integer("num_paragraphs");
}
// As the reference: blank paragraphs are not counted, but they do count for which one is the n-th.
bool nth_paragraph_first_word(const Arguments& a, TextView answer) {
  const int64_t wanted = a.integer("num_paragraphs"), nth = a.integer("nth_paragraph");
  const auto parts = split(answer, U"\n\n");
  const auto count =
      std::count_if(parts.begin(), parts.end(), [](TextView part) { return !strip(part).empty(); });
  if (nth < 1 || nth > count) return false;
  const auto tokens = split_space(parts[static_cast<std::size_t>(nth - 1)]);
  if (tokens.empty()) return false;
  TextView word = tokens.front();
  while (word.starts_with(U"'")) word.remove_prefix(1);
  while (word.starts_with(U"\"")) word.remove_prefix(1);
  word = word.substr(0, word.find_first_of(U".,?!'\""));
  return count == wanted && lower(word) == lower(a.text("first_word"));
}

// detectable_content ------------------------------------------------------------------------------

// \[.*?\]
bool number_placeholders(const Arguments& a, TextView answer) {
  int64_t count = 0;
  for (std::size_t i = 0; i < answer.size(); ++i) {
    if (answer[i] != '[') continue;
    i = std::min(answer.find_first_of(U"]\n", i + 1), answer.size());
    if (i < answer.size() && answer[i] == ']') ++count;
  }
  return count >= a.integer("num_placeholders");
}

// p\.\s?p\.\s?s or p\.\s?s\. ; another marker as it is, its dots standing for any character but a
// line feed.
bool matches_marker(TextView text, std::size_t i, TextView pattern, bool spaces) {
  for (std::size_t k = 0; k < pattern.size(); ++k) {
    if (spaces && k > 0 && pattern[k] != '.') i = skip_one_space(text, i);
    if (i >= text.size()) return false;
    const bool any = !spaces && pattern[k] == '.' && text[i] != '\n';
    if (!any && text[i] != pattern[k]) return false;
    ++i;
  }
  return true;
}
bool postscript(const Arguments& a, TextView answer) {
  const Text given(strip(a.text("postscript_marker"))), small = lower(answer);
  const bool known = given == U"P.S." || given == U"P.P.S";
  const Text pattern = lower(given);
  for (std::size_t i = 0; i < small.size(); ++i)
    if (matches_marker(small, i, pattern, known)) return true;
  return false;
}

// detectable_format -------------------------------------------------------------------------------

// Matches of ^\s*MARK.. .*$ in all lines: `mark_ends` says whether the character behind the mark is
// wanted.
int64_t bullets(TextView text, char32_t mark, bool (*follows)(TextView rest)) {
  int64_t count = 0;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t at = skip_space(text, i);
    if (at < text.size() && text[at] == mark && follows(text.substr(at + 1))) {
      ++count;
      // "*" at the end of a line takes the line feed as its character and the next line with it.
      i = text.find(U'\n', mark == '*' ? at + 2 : at + 1);
    } else {
      i = text.find(U'\n', i);
    }
    if (i == TextView::npos) break;
    ++i;
  }
  return count;
}
bool number_bullet_lists(const Arguments& a, TextView answer) {
  const int64_t stars =
      bullets(answer, U'*', [](TextView rest) { return !rest.empty() && rest[0] != '*'; });
  const int64_t dashes = bullets(answer, U'-', [](TextView) { return true; });
  return stars + dashes == a.integer("num_bullets");
}

// Matches of MARK[^\n*]*MARK with something between.
int64_t highlights(TextView text, TextView mark) {
  int64_t count = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (!text.substr(i).starts_with(mark)) {
      ++i;
      continue;
    }
    const std::size_t begin = i + mark.size();
    const std::size_t end = std::min(text.find_first_of(U"\n*", begin), text.size());
    if (!text.substr(end).starts_with(mark)) {
      ++i;
      continue;
    }
    if (!strip(text.substr(begin, end - begin)).empty()) ++count;
    i = end + mark.size();
  }
  return count;
}
bool number_highlighted_sections(const Arguments& a, TextView answer) {
  return highlights(answer, U"*") + highlights(answer, U"**") >= a.integer("num_highlights");
}

// <<[^\n]+>>, as long as the line allows.
bool title(const Arguments&, TextView answer) {
  for (std::size_t i = answer.find(U"<<"); i != TextView::npos;) {
    const TextView line = answer.substr(i, answer.find(U'\n', i) - i);
    const std::size_t end = line.rfind(U">>");
    if (end == TextView::npos || end < 3) {
      i = answer.find(U"<<", i + (end == TextView::npos ? line.size() : 1));
      continue;
    }
    TextView inside = line.substr(0, end + 2);
    while (inside.starts_with(U"<")) inside.remove_prefix(1);
    while (inside.ends_with(U">")) inside.remove_suffix(1);
    if (!strip(inside).empty()) return true;
    i = answer.find(U"<<", i + end + 2);
  }
  return false;
}

// SPLITTER\s?\d+
bool multiple_sections(const Arguments& a, TextView answer) {
  const Text splitter(strip(a.text("section_spliter")));
  int64_t count = 0;
  for (std::size_t i = answer.find(splitter); i != TextView::npos;) {
    std::size_t end = skip_one_space(answer, i + splitter.size());
    if (end < answer.size() && is_digit(answer[end])) {
      ++count;
      while (end < answer.size() && is_digit(answer[end])) ++end;
      i = answer.find(splitter, end);
    } else {
      i = answer.find(splitter, i + 1);
    }
  }
  return count >= a.integer("num_sections");
}

bool json_format(const Arguments&, TextView answer) {
  TextView text = strip(answer);
  for (const TextView fence : {U"```json", U"```Json", U"```JSON", U"```"})
    if (text.starts_with(fence)) text.remove_prefix(fence.size());
  if (text.ends_with(U"```")) text.remove_suffix(3);
  return nlohmann::json::accept(encode(strip(text)));
}

bool constrained_response(const Arguments&, TextView answer) {
  return contains(answer, U"My answer is yes.") || contains(answer, U"My answer is no.") ||
         contains(answer, U"My answer is maybe.");
}

// combination, startend ---------------------------------------------------------------------------

bool two_responses(const Arguments&, TextView answer) {
  const auto parts = split(answer, U"******");
  std::vector<TextView> valid;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const TextView part = strip(parts[i]);
    if (!part.empty()) {
      valid.push_back(part);
    } else if (i != 0 && i + 1 != parts.size()) {
      return false;
    }
  }
  return valid.size() == 2 && valid[0] != valid[1];
}
bool repeat_prompt(const Arguments& a, TextView answer) {
  const Text prompt = a.text("prompt_to_repeat");
  return lower(strip(answer)).starts_with(lower(strip(prompt)));
}
bool end_checker(const Arguments& a, TextView answer) {
  const Text phrase = a.text("end_phrase");
  return lower(strip(strip(answer), U'"')).ends_with(lower(strip(phrase)));
}
bool quotation(const Arguments&, TextView answer) {
  const TextView text = strip(answer);
  return text.size() > 1 && text.front() == '"' && text.back() == '"';
}

// change_case, language, punctuation --------------------------------------------------------------

bool is_language(TextView answer, std::string_view language) {
  const std::string_view found = detect_language(answer);
  return found == kNoLanguage || found == language;  // as the reference: nothing to detect passes
}
bool english_capital(const Arguments&, TextView answer) {
  return all_upper(answer) && is_language(answer, "en");
}
bool english_lowercase(const Arguments&, TextView answer) {
  return all_lower(answer) && is_language(answer, "en");
}
bool capital_word_frequency(const Arguments& a, TextView answer) {
  const auto tokens = word_tokens(answer);
  return compare(std::count_if(tokens.begin(), tokens.end(), all_upper), a, "capital_relation",
                 a.integer("capital_frequency"));
}
bool response_language(const Arguments& a, TextView answer) {
  return is_language(answer, encode(a.text("language")));
}
bool no_comma(const Arguments&, TextView answer) { return !contains(answer, U","); }

constexpr Checker kCheckers[] = {
    {"keywords:existence", keyword_existence},
    {"keywords:forbidden_words", forbidden_words},
    {"keywords:frequency", keyword_frequency},
    {"keywords:letter_frequency", letter_frequency},
    {"language:response_language", response_language},
    {"length_constraints:number_sentences", number_sentences},
    {"length_constraints:number_paragraphs", number_paragraphs},
    {"length_constraints:number_words", number_words},
    {"length_constraints:nth_paragraph_first_word", nth_paragraph_first_word},
    {"detectable_content:number_placeholders", number_placeholders},
    {"detectable_content:postscript", postscript},
    {"detectable_format:number_bullet_lists", number_bullet_lists},
    {"detectable_format:constrained_response", constrained_response},
    {"detectable_format:number_highlighted_sections", number_highlighted_sections},
    {"detectable_format:multiple_sections", multiple_sections},
    {"detectable_format:json_format", json_format},
    {"detectable_format:title", title},
    {"combination:two_responses", two_responses},
    {"combination:repeat_prompt", repeat_prompt},
    {"startend:end_checker", end_checker},
    {"startend:quotation", quotation},
    {"change_case:capital_word_frequency", capital_word_frequency},
    {"change_case:english_capital", english_capital},
    {"change_case:english_lowercase", english_lowercase},
    {"punctuation:no_comma", no_comma},
};

}  // namespace

std::span<const Checker> ifeval_checkers() { return kCheckers; }

}  // namespace crumb::eval

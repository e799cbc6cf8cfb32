// IFBench's instructions on format, and its single ones (ifbench_checkers.cpp says where from).
#include <algorithm>

#include "bench/eval/ifbench_text.h"
#include "bench/eval/sentences.h"

namespace crumb::eval {
namespace {

// format ------------------------------------------------------------------------------------------

bool parentheses(const Arguments&, TextView answer) {
  Text open;
  std::size_t deepest = 0;
  for (const char32_t c : answer) {
    if (is_in(c, U"([{")) {
      open += c;
      deepest = std::max(deepest, open.size());
    } else if (const std::size_t kind = TextView(U")]}").find(c); kind != TextView::npos) {
      if (open.empty() || open.back() != U"([{"[kind]) {
        open.clear();
        deepest = 0;
        continue;
      }
      open.pop_back();
      if (deepest >= 5 && open.size() < deepest) return true;
    }
  }
  return false;
}
bool quotes(const Arguments&, TextView answer) {
  Text open;
  std::size_t deepest = 0;
  for (const char32_t c : answer) {
    if (!open.empty() && c == open.back()) {
      open.pop_back();
      if (deepest - open.size() >= 3) return true;
    } else if (c == '"' || c == '\'') {
      open += c;
      deepest = std::max(deepest, open.size());
    }
  }
  return false;
}
// \W*[aA]\W*[bB]\W*[cC] : letters must be given as they are.
bool are_letters(TextView options) {
  std::size_t next = 0;
  for (const char32_t c : options) {
    if (!is_word(c)) continue;
    if (c != U"abc"[next] && c != U"ABC"[next]) return false;
    if (++next == 3) return true;
  }
  return false;
}
bool options(const Arguments& a, TextView answer) {
  const Text given = a.text("options");
  const TextView separator = contains(given, U"/") ? U"/" : contains(given, U"or") ? U"or" : U",";
  const bool letters = are_letters(given);
  const auto plain = [](TextView text) { return lower(strip_both(text, kPunctuationOrSpace)); };
  const auto list = split(given, separator);
  return std::any_of(list.begin(), list.end(), [&](TextView one) {
    return letters ? strip(one) == answer : plain(strip(one)) == plain(answer);
  });
}
bool newline(const Arguments&, TextView answer) {
  const Text plain = without_punctuation(answer);
  const auto lines = lines_of(strip(plain));
  return std::count_if(lines.begin(), lines.end(), [](TextView line) { return !line.empty(); }) ==
         std::ssize(split_space(plain));
}
// As the reference: removing a blank line while going over the list skips the line after it.
bool line_indent(const Arguments&, TextView answer) {
  auto lines = lines_of(answer);
  for (std::size_t i = 0; i < lines.size(); ++i)
    if (strip(lines[i]).empty()) lines.erase(std::find(lines.begin(), lines.end(), lines[i]));
  const auto indent = [](TextView line) { return line.size() - strip_left(line, U" ").size(); };
  return std::adjacent_find(lines.begin(), lines.end(), [&](TextView x, TextView y) {
           return indent(y) <= indent(x);
         }) == lines.end();
}
bool quote_unquote(const Arguments&, TextView answer) {
  Text text(answer);
  for (std::size_t at = 0; (at = text.find(U"'\"'", at)) != Text::npos;) text.erase(at, 3);
  std::erase_if(text, is_space);
  if (contains(text, U"\"\"")) return false;
  const TextView stripped = strip_both(text, U"0123456789!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~");
  return stripped.empty() || stripped.back() != '"';
}
bool list_markers(const Arguments& a, TextView answer) {
  return std::ssize(split(answer, a.text("sep"))) - 1 >= 2;
}
bool thesis(const Arguments&, TextView answer) {
  std::size_t begin = answer.find(U"<i>");
  if (begin == TextView::npos) begin = answer.find(U"<em>");
  if (begin == TextView::npos) return false;
  const TextView text = answer.substr(begin);
  std::size_t end = text.find(U"</i>");
  if (end == TextView::npos) end = text.find(U"</em>");
  if (end == TextView::npos || end < 3) return false;
  return !strip(text.substr(3, end - 3)).empty() && !strip(text.substr(end + 4)).empty();
}
bool sub_bullets(const Arguments&, TextView answer) {
  const auto parts = split(answer, U"*");
  return std::all_of(parts.begin() + 1, parts.end(),
                     [](TextView part) { return contains(part, U"-"); });
}
// At least two sentences, then at least two bullets and nothing else.
bool no_bullets_bullets(const Arguments&, TextView answer) {
  bool before = true;
  int64_t count = 0, bullets = 0;
  for (const TextView whole : lines_of(answer)) {
    const TextView line = strip(whole);
    if (line.starts_with(U"*")) {
      before = false;
      if (count < 2) return false;
      ++bullets;
    } else if (before) {
      // As the reference, whose flag becomes the list of the line's sentences: a blank line ends
      // this part.
      const int64_t here = count_sentences(line);
      count += here;
      before = here > 0;
    } else {
      return false;
    }
  }
  return bullets >= 2;
}
bool title_case(const Arguments&, TextView answer) {
  for (const Text& word : word_tokens(answer)) {
    const TextView rest = TextView(word).substr(1);
    if (!is_letter(word[0]) || !is_lower(word[0])) continue;
    if (rest.empty() || all_upper(rest) || all_lower(rest)) return false;
  }
  return true;
}
bool output_template(const Arguments&, TextView answer) {
  return contains(answer, U"My Answer:") && contains(answer, U"My Conclusion:") &&
         contains(answer, U"Future Outlook:");
}
bool no_whitespace(const Arguments&, TextView answer) {
  return std::none_of(answer.begin(), answer.end(), is_space);
}

// custom, repeat ----------------------------------------------------------------------------------

bool multiples(const Arguments&, TextView answer) {
  return digit_runs(answer) == split_space(U"14 21 28 35 42 49");
}
bool word_reverse(const Arguments&, TextView answer) {
  const Text plain = without_punctuation(strip(lower(answer)));
  auto list = split_space(plain);
  std::reverse(list.begin(), list.end());
  const Text turned = join(list, U" ");
  const auto cut = sentences(turned);
  return contains(turned, U"bald eagle") && cut.size() == 1 && cut[0] == turned;
}
bool character_reverse(const Arguments&, TextView answer) {
  return contains(lower(answer), U"elgae dlab");
}
bool sentence_alphabet(const Arguments&, TextView answer) {
  const auto list = sentences(answer);
  if (list.size() != 26) return false;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto tokens = split_space(list[i]);
    if (tokens.empty() || lower(tokens[0])[0] != U'a' + i) return false;
  }
  return true;
}
// Diacritics are taken off only where the capitals' usual spellings have them.
bool european_capitals(const Arguments&, TextView answer) {
  constexpr TextView kOrder =
      U"Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin "
      U"Berlin "
      U"Amsterdam Warsaw London Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz "
      U"Chisinau Bern Ljubljana Zagreb";
  Text plain(answer);
  for (const auto& [from, to] :
       {std::pair(U'í', U'i'), std::pair(U'ă', U'a'), std::pair(U'ș', U's'), std::pair(U'ş', U's'),
        std::pair(U'é', U'e')})
    std::replace(plain.begin(), plain.end(), from, to);
  std::vector<TextView> given;
  for (const TextView part : split(plain, U","))
    if (!strip(part).empty()) given.push_back(strip(part));
  return given == split_space(kOrder);
}
int number_of(TextView digits) {
  int value = 0;
  for (const char32_t c : digits) value = value * 10 + static_cast<int>(c - '0');
  return value;
}
bool is_date(TextView date) {
  if (date.size() != 10 || date[4] != '-' || date[7] != '-') return false;
  for (std::size_t i = 0; i < date.size(); ++i)
    if (i != 4 && i != 7 && (date[i] < '0' || date[i] > '9')) return false;
  const int year = number_of(date.substr(0, 4)), month = number_of(date.substr(5, 2));
  const int day = number_of(date.substr(8, 2));
  constexpr int kDays[] = {99, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return year >= 1769 && year <= 1821 && month <= 12 && day <= kDays[month];
}
bool date_format_list(const Arguments&, TextView answer) {
  const auto dates = split(strip(answer), U",");
  return std::all_of(dates.begin(), dates.end(), [](TextView one) { return is_date(strip(one)); });
}
bool repeat_change(const Arguments& a, TextView answer) {
  const Text prompt = a.text("prompt_to_repeat");
  if (prompt == answer) return false;
  auto own = split_space(answer), other = split_space(prompt);
  if (!own.empty()) own.erase(own.begin());
  if (!other.empty()) other.erase(other.begin());
  return own == other;
}
bool repeat_span(const Arguments& a, TextView answer) {
  const Text prompt = a.text("prompt_to_repeat");
  const auto begin = static_cast<std::size_t>(a.has("n_start") ? a.integer("n_start") : 0);
  const auto end = static_cast<std::size_t>(a.has("n_end") ? a.integer("n_end") : 0) + 1;
  const TextView span = begin < std::min(end, prompt.size())
                            ? TextView(prompt).substr(begin, end - begin)
                            : TextView();
  return lower(strip(answer)) == lower(strip(span));
}

constexpr Checker kCheckers[] = {
    {"custom:character_reverse", character_reverse},
    {"custom:date_format_list", date_format_list},
    {"custom:european_capitals_sort", european_capitals},
    {"custom:multiples", multiples},
    {"custom:sentence_alphabet", sentence_alphabet},
    {"custom:word_reverse", word_reverse},
    {"format:line_indent", line_indent},
    {"format:list", list_markers},
    {"format:newline", newline},
    {"format:no_bullets_bullets", no_bullets_bullets},
    {"format:no_whitespace", no_whitespace},
    {"format:options", options},
    {"format:output_template", output_template},
    {"format:parentheses", parentheses},
    {"format:quote_unquote", quote_unquote},
    {"format:quotes", quotes},
    {"format:sub-bullets", sub_bullets},
    {"format:thesis", thesis},
    {"format:title_case", title_case},
    {"repeat:repeat_change", repeat_change},
    {"repeat:repeat_span", repeat_span},
};

}  // namespace

std::span<const Checker> ifbench_format_checkers() { return kCheckers; }

}  // namespace crumb::eval

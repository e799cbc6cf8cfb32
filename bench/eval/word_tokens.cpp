// NLTKWordTokenizer (nltk/tokenize/destructive.py): its substitutions in its order, each written
// out as a matcher. What a matcher sees behind it is the text as it was before that substitution.
#include <functional>
#include <optional>

#include "bench/eval/sentences.h"

namespace crumb::eval {
namespace {

struct Match {
  std::size_t length = 0;
  Text replacement;
};
using Matcher = std::function<std::optional<Match>(TextView text, std::size_t i)>;

Text substitute(TextView text, const Matcher& matcher) {
  Text out;
  out.reserve(text.size() + 16);
  for (std::size_t i = 0; i < text.size();) {
    if (const auto match = matcher(text, i); match && match->length > 0) {
      out += match->replacement;
      i += match->length;
    } else {
      out += text[i++];
    }
  }
  return out;
}

bool is_any(char32_t c, TextView set) { return set.find(c) != TextView::npos; }

Match padded(TextView part) { return {part.size(), U" " + Text(part) + U" "}; }

// Runs of at least `least` characters of `set`, in spaces of their own.
Matcher pad(TextView set, std::size_t least = 1, bool whole_run = false) {
  return [set, least, whole_run](TextView text, std::size_t i) -> std::optional<Match> {
    std::size_t end = i;
    while (end < text.size() && is_any(text[end], set) && (whole_run || end == i)) ++end;
    if (end - i < least || end == i) return std::nullopt;
    return padded(text.substr(i, end - i));
  };
}

Matcher replace(TextView from, TextView to) {
  return [from, to](TextView text, std::size_t i) -> std::optional<Match> {
    if (!text.substr(i).starts_with(from)) return std::nullopt;
    return Match{from.size(), Text(to)};
  };
}

bool starts_ignoring_case(TextView text, TextView small) {
  return text.size() >= small.size() && lower(text.substr(0, small.size())) == small;
}

// re, ve, ll, m, t, s, d, n as a whole word.
bool is_clitic(TextView rest) {
  for (const TextView clitic : {U"re", U"ve", U"ll", U"m", U"t", U"s", U"d", U"n"})
    if (starts_ignoring_case(rest, clitic) &&
        (rest.size() == clitic.size() || !is_word_or_mark(rest[clitic.size()])))
      return true;
  return false;
}

std::optional<Match> opening_quote(TextView text, std::size_t i) {
  if (!is_any(text[i], U" ([{<")) return std::nullopt;
  const TextView rest = text.substr(i + 1);
  const std::size_t length = rest.starts_with(U"\"") ? 1 : rest.starts_with(U"''") ? 2 : 0;
  if (length == 0) return std::nullopt;
  return Match{1 + length, Text(1, text[i]) + U" `` "};
}

std::optional<Match> opening_apostrophe(TextView text, std::size_t i) {
  if (text[i] != '\'' || (i > 0 && is_word_or_mark(text[i - 1]))) return std::nullopt;
  const TextView rest = text.substr(i + 1);
  if (rest.empty() || !is_word_or_mark(rest[0]) || is_clitic(rest)) return std::nullopt;
  return Match{1, U"' "};
}

// ([^.])(\.)([CLOSERS]*)\s*$ : the period that ends the text.
Matcher last_period(TextView closers, bool space_before_closers) {
  return [=](TextView text, std::size_t i) -> std::optional<Match> {
    if (text[i] == '.' || i + 1 >= text.size() || text[i + 1] != '.') return std::nullopt;
    std::size_t end = i + 2;
    while (end < text.size() && is_any(text[end], closers)) ++end;
    for (std::size_t k = end; k < text.size(); ++k)
      if (!is_space(text[k])) return std::nullopt;
    const Text closing(text.substr(i + 2, end - i - 2));
    return Match{text.size() - i,
                 Text(1, text[i]) + U" ." + (space_before_closers ? U" " : U"") + closing + U" "};
  };
}

std::optional<Match> colon_or_comma(TextView text, std::size_t i) {
  if (!is_any(text[i], U":,") || i + 1 >= text.size() || is_digit(text[i + 1])) return std::nullopt;
  return Match{2, U" " + Text(1, text[i]) + U" " + text[i + 1]};
}

std::optional<Match> last_colon_or_comma(TextView text, std::size_t i) {
  const bool last = i + 1 == text.size() || (i + 2 == text.size() && text[i + 1] == '\n');
  if (!is_any(text[i], U":,") || !last) return std::nullopt;
  return padded(text.substr(i, 1));
}

std::optional<Match> closing_apostrophe(TextView text, std::size_t i) {
  if (text[i] == '\'' || !text.substr(i + 1).starts_with(U"' ")) return std::nullopt;
  return Match{3, Text(1, text[i]) + U" ' "};
}

// ([^' ])(ENDING)<space>
Matcher ending(std::vector<TextView> endings) {
  return [endings = std::move(endings)](TextView text, std::size_t i) -> std::optional<Match> {
    if (is_any(text[i], U"' ")) return std::nullopt;
    for (const TextView one : endings) {
      const TextView rest = text.substr(i + 1);
      if (rest.starts_with(one) && rest.substr(one.size()).starts_with(U" "))
        return Match{one.size() + 2, Text(1, text[i]) + U" " + Text(one) + U" "};
    }
    return std::nullopt;
  };
}

std::optional<Match> white_space(TextView text, std::size_t i) {
  std::size_t end = i;
  while (end < text.size() && is_space(text[end])) ++end;
  return Match{end - i, U" "};
}

// \b(HEAD)(TAIL)\b in any case; `before` is a space that must stand in front instead of \b.
Matcher contraction(TextView head, TextView tail, bool after_space = false) {
  return [=](TextView text, std::size_t i) -> std::optional<Match> {
    const std::size_t lead = after_space ? 1 : 0;
    if (after_space ? text[i] != ' ' : i > 0 && is_word_or_mark(text[i - 1])) return std::nullopt;
    const TextView rest = text.substr(i + lead);
    if (!starts_ignoring_case(rest, head) || !starts_ignoring_case(rest.substr(head.size()), tail))
      return std::nullopt;
    const std::size_t length = head.size() + tail.size();
    const bool wants_space = head == U"wan";
    if (wants_space ? rest.size() == length || !is_space(rest[length])
                    : rest.size() > length && is_word_or_mark(rest[length]))
      return std::nullopt;
    return Match{lead + length, U" " + Text(rest.substr(0, head.size())) + U" " +
                                    Text(rest.substr(head.size(), tail.size())) + U" "};
  };
}

std::vector<Matcher> before_padding() {
  return {[](TextView text, std::size_t i) -> std::optional<Match> {
            if (text[i] == '`') return pad(U"`", 1, true)(text, i);
            return pad(U"«“‘„")(text, i);
          },
          [](TextView text, std::size_t i) -> std::optional<Match> {
            if (i > 0 || text[0] != '"') return std::nullopt;
            return Match{1, U"``"};
          },
          replace(U"``", U" `` "),
          opening_quote,
          opening_apostrophe,
          last_period(U"])}>\"'»”’ ", true),
          colon_or_comma,
          last_colon_or_comma,
          pad(U".", 2, true),
          pad(U";@#$%&"),
          pad(U"\u2012\u2013\u2014\u2015"),
          last_period(U"])}>\"'", false),
          pad(U"?!"),
          closing_apostrophe,
          pad(U"*"),
          pad(U"][(){}<>"),
          replace(U"--", U" -- ")};
}

std::vector<Matcher> after_padding() {
  return {pad(U"»”’"),
          replace(U"''", U" '' "),
          replace(U"\"", U" '' "),
          white_space,
          ending({U"'s", U"'S", U"'m", U"'M", U"'d", U"'D", U"'"}),
          ending({U"'ll", U"'LL", U"'re", U"'RE", U"'ve", U"'VE", U"n't", U"N'T"}),
          contraction(U"can", U"not"),
          contraction(U"d", U"'ye"),
          contraction(U"gim", U"me"),
          contraction(U"gon", U"na"),
          contraction(U"got", U"ta"),
          contraction(U"lem", U"me"),
          contraction(U"more", U"'n"),
          contraction(U"wan", U"na"),
          contraction(U"'t", U"is", true),
          contraction(U"'t", U"was", true)};
}

}  // namespace

std::vector<Text> word_tokens(TextView text) {
  static const std::vector<Matcher> before = before_padding(), after = after_padding();
  std::vector<Text> tokens;
  for (const TextView sentence : sentences(text)) {
    Text work(sentence);
    for (const Matcher& matcher : before) work = substitute(work, matcher);
    work.insert(work.begin(), U' ');
    work += U' ';
    for (const Matcher& matcher : after) work = substitute(work, matcher);
    for (const TextView token : split_space(work)) tokens.emplace_back(token);
  }
  return tokens;
}

}  // namespace crumb::eval

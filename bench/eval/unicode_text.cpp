#include "bench/eval/unicode_text.h"

#include <algorithm>
#include <iterator>

#include "tokenizer/jinja_unicode.h"
#include "tokenizer/unicode_tables.h"
#include "tokenizer/utf8.h"

namespace crumb::eval {
namespace {

namespace python = tokenizer::jinja;

// The zeros of all scripts: ten decimal digits follow one another from each (Unicode 14, Nd).
constexpr char32_t kZeros[] = {
    0x30,    0x660,   0x6F0,   0x7C0,   0x966,   0x9E6,   0xA66,   0xAE6,   0xB66,   0xBE6,
    0xC66,   0xCE6,   0xD66,   0xDE6,   0xE50,   0xED0,   0xF20,   0x1040,  0x1090,  0x17E0,
    0x1810,  0x1946,  0x19D0,  0x1A80,  0x1A90,  0x1B50,  0x1BB0,  0x1C40,  0x1C50,  0xA620,
    0xA8D0,  0xA900,  0xA9D0,  0xA9F0,  0xAA50,  0xABF0,  0xFF10,  0x104A0, 0x10D30, 0x11066,
    0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0,
    0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2,
    0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0};

tokenizer::CharClass class_of(char32_t c) {
  const auto ranges = tokenizer::class_ranges();
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), static_cast<uint32_t>(c),
                       [](uint32_t v, const tokenizer::ClassRange& r) { return v < r.first; });
  if (after == ranges.begin() || c > std::prev(after)->last) return tokenizer::CharClass::kOther;
  return std::prev(after)->char_class;
}

// One character's lower case, itself where that is several.
char32_t fold(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  const Text low = lower(TextView(&c, 1));
  return low.size() == 1 ? low[0] : c;
}

bool same_ignoring_case(TextView a, TextView b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char32_t x, char32_t y) { return x == y || fold(x) == fold(y); });
}

template <class Predicate>
std::vector<TextView> runs(TextView text, Predicate inside) {
  std::vector<TextView> found;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && inside(text[end])) ++end;
    if (end > i) found.push_back(text.substr(i, end - i));
    i = std::max(end, i + 1);
  }
  return found;
}

template <class Predicate>
TextView strip_if(TextView text, Predicate outside) {
  while (!text.empty() && outside(text.front())) text.remove_prefix(1);
  while (!text.empty() && outside(text.back())) text.remove_suffix(1);
  return text;
}

bool is_boundary(TextView text, std::size_t at) {
  const bool before = at > 0 && is_word(text[at - 1]);
  const bool after = at < text.size() && is_word(text[at]);
  return before != after;
}

}  // namespace

Text decode(std::string_view utf8) {
  Text text;
  text.reserve(utf8.size());
  for (std::size_t i = 0; i < utf8.size();) {
    const auto c = tokenizer::code_point_at(utf8, i);
    text += c.value == tokenizer::kNoCodePoint ? U'\uFFFD' : static_cast<char32_t>(c.value);
    i += static_cast<std::size_t>(c.length);
  }
  return text;
}

std::string encode(TextView text) {
  std::string utf8;
  for (const char32_t c : text) tokenizer::append_utf8(utf8, c);
  return utf8;
}

bool is_word(char32_t c) {
  if (c < 0x80)
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  const auto kind = class_of(c);
  return kind == tokenizer::CharClass::kLetter || kind == tokenizer::CharClass::kNumber;
}

bool is_digit(char32_t c) {
  const auto after = std::upper_bound(std::begin(kZeros), std::end(kZeros), c);
  return after != std::begin(kZeros) && c - *std::prev(after) < 10;
}

bool is_letter(char32_t c) { return class_of(c) == tokenizer::CharClass::kLetter; }
bool is_space(char32_t c) { return python::is_space(c); }
bool is_upper(char32_t c) { return python::is_upper(c); }
bool is_lower(char32_t c) { return python::is_lower(c); }

Text lower(TextView text) {
  if (std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x80; })) {
    Text low(text);
    for (char32_t& c : low) c = fold(c);
    return low;
  }
  return decode(python::to_lower(encode(text)));
}

bool all_upper(TextView text) {
  return std::none_of(text.begin(), text.end(), is_lower) &&
         std::any_of(text.begin(), text.end(), is_upper);
}
bool all_lower(TextView text) {
  return std::none_of(text.begin(), text.end(), is_upper) &&
         std::any_of(text.begin(), text.end(), is_lower);
}

TextView strip(TextView text) { return strip_if(text, is_space); }
TextView strip(TextView text, char32_t c) {
  return strip_if(text, [c](char32_t one) { return one == c; });
}

std::vector<TextView> split(TextView text, TextView separator) {
  std::vector<TextView> parts;
  while (true) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == TextView::npos) return parts;
    text.remove_prefix(at + separator.size());
  }
}

std::vector<TextView> split_space(TextView text) {
  return runs(text, [](char32_t c) { return !is_space(c); });
}
std::vector<TextView> words(TextView text) { return runs(text, is_word); }

Text join(const std::vector<TextView>& parts, TextView separator) {
  Text text;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) text += separator;
    text += parts[i];
  }
  return text;
}

Text without(TextView text, char32_t c) {
  Text result(text);
  std::erase(result, c);
  return result;
}

std::size_t find_ignoring_case(TextView text, TextView needle, std::size_t from) {
  for (std::size_t i = from; !needle.empty() && i + needle.size() <= text.size(); ++i)
    if (same_ignoring_case(text.substr(i, needle.size()), needle)) return i;
  return TextView::npos;
}

int64_t count_ignoring_case(TextView text, TextView needle) {
  int64_t count = 0;
  for (std::size_t at = find_ignoring_case(text, needle); at != TextView::npos;
       at = find_ignoring_case(text, needle, at + needle.size()))
    ++count;
  return count;
}

bool has_whole_word(TextView text, TextView needle) {
  for (std::size_t at = find_ignoring_case(text, needle); at != TextView::npos;
       at = find_ignoring_case(text, needle, at + 1))
    if (is_boundary(text, at) && is_boundary(text, at + needle.size())) return true;
  return false;
}

}  // namespace crumb::eval

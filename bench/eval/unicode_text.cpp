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

// Combining marks (general category M*) below U+3100; what lies between two in unassigned places is
// inside.
constexpr struct {
  char32_t first, last;
} kMarks[] = {
    {0x300, 0x36F},   {0x483, 0x489},   {0x591, 0x5BD},   {0x5BF, 0x5BF},   {0x5C1, 0x5C2},
    {0x5C4, 0x5C5},   {0x5C7, 0x5C7},   {0x610, 0x61A},   {0x64B, 0x65F},   {0x670, 0x670},
    {0x6D6, 0x6DC},   {0x6DF, 0x6E4},   {0x6E7, 0x6E8},   {0x6EA, 0x6ED},   {0x711, 0x711},
    {0x730, 0x74A},   {0x7A6, 0x7B0},   {0x7EB, 0x7F3},   {0x7FD, 0x7FD},   {0x816, 0x819},
    {0x81B, 0x823},   {0x825, 0x827},   {0x829, 0x82D},   {0x859, 0x85B},   {0x898, 0x89F},
    {0x8CA, 0x8E1},   {0x8E3, 0x903},   {0x93A, 0x93C},   {0x93E, 0x94F},   {0x951, 0x957},
    {0x962, 0x963},   {0x981, 0x983},   {0x9BC, 0x9BC},   {0x9BE, 0x9CD},   {0x9D7, 0x9D7},
    {0x9E2, 0x9E3},   {0x9FE, 0xA03},   {0xA3C, 0xA51},   {0xA70, 0xA71},   {0xA75, 0xA75},
    {0xA81, 0xA83},   {0xABC, 0xABC},   {0xABE, 0xACD},   {0xAE2, 0xAE3},   {0xAFA, 0xB03},
    {0xB3C, 0xB3C},   {0xB3E, 0xB57},   {0xB62, 0xB63},   {0xB82, 0xB82},   {0xBBE, 0xBCD},
    {0xBD7, 0xBD7},   {0xC00, 0xC04},   {0xC3C, 0xC3C},   {0xC3E, 0xC56},   {0xC62, 0xC63},
    {0xC81, 0xC83},   {0xCBC, 0xCBC},   {0xCBE, 0xCD6},   {0xCE2, 0xCE3},   {0xD00, 0xD03},
    {0xD3B, 0xD3C},   {0xD3E, 0xD4D},   {0xD57, 0xD57},   {0xD62, 0xD63},   {0xD81, 0xD83},
    {0xDCA, 0xDDF},   {0xDF2, 0xDF3},   {0xE31, 0xE31},   {0xE34, 0xE3A},   {0xE47, 0xE4E},
    {0xEB1, 0xEB1},   {0xEB4, 0xEBC},   {0xEC8, 0xECD},   {0xF18, 0xF19},   {0xF35, 0xF35},
    {0xF37, 0xF37},   {0xF39, 0xF39},   {0xF3E, 0xF3F},   {0xF71, 0xF84},   {0xF86, 0xF87},
    {0xF8D, 0xFBC},   {0xFC6, 0xFC6},   {0x102B, 0x103E}, {0x1056, 0x1059}, {0x105E, 0x1060},
    {0x1062, 0x1064}, {0x1067, 0x106D}, {0x1071, 0x1074}, {0x1082, 0x108D}, {0x108F, 0x108F},
    {0x109A, 0x109D}, {0x135D, 0x135F}, {0x1712, 0x1715}, {0x1732, 0x1734}, {0x1752, 0x1753},
    {0x1772, 0x1773}, {0x17B4, 0x17D3}, {0x17DD, 0x17DD}, {0x180B, 0x180D}, {0x180F, 0x180F},
    {0x1885, 0x1886}, {0x18A9, 0x18A9}, {0x1920, 0x193B}, {0x1A17, 0x1A1B}, {0x1A55, 0x1A7F},
    {0x1AB0, 0x1B04}, {0x1B34, 0x1B44}, {0x1B6B, 0x1B73}, {0x1B80, 0x1B82}, {0x1BA1, 0x1BAD},
    {0x1BE6, 0x1BF3}, {0x1C24, 0x1C37}, {0x1CD0, 0x1CD2}, {0x1CD4, 0x1CE8}, {0x1CED, 0x1CED},
    {0x1CF4, 0x1CF4}, {0x1CF7, 0x1CF9}, {0x1DC0, 0x1DFF}, {0x20D0, 0x20F0}, {0x2CEF, 0x2CF1},
    {0x2D7F, 0x2D7F}, {0x2DE0, 0x2DFF}, {0x302A, 0x302F}, {0x3099, 0x309A}};

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

bool is_word_or_mark(char32_t c) {
  if (c < 0x80) return is_word(c);
  const auto after =
      std::upper_bound(std::begin(kMarks), std::end(kMarks), c,
                       [](char32_t v, const auto& range) { return v < range.first; });
  if (after != std::begin(kMarks) && c <= std::prev(after)->last) return true;
  const auto kind = class_of(c);
  const bool roman = c >= 0x2160 && c <= 0x2188;
  return kind == tokenizer::CharClass::kLetter || is_digit(c) || roman;
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
std::vector<TextView> words(TextView text) { return runs(text, is_word_or_mark); }

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

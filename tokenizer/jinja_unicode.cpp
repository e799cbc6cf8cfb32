#include "tokenizer/jinja_unicode.h"

#include <algorithm>
#include <iterator>

#include "tokenizer/jinja_unicode_tables.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

constexpr uint32_t kInvalid = 0xFFFFFFFF;

// The row of a sorted table whose [first, last] holds the code point, or null.
template <std::size_t kRows, std::size_t kWidth>
const int32_t* row_of(const int32_t (&table)[kRows][kWidth], uint32_t code_point) {
  if (code_point > 0x10FFFF) return nullptr;
  const auto value = static_cast<int32_t>(code_point);
  const auto row = std::upper_bound(std::begin(table), std::end(table), value,
                                    [](int32_t v, const int32_t(&r)[kWidth]) { return v < r[0]; });
  return row == std::begin(table) ? nullptr : *std::prev(row);
}

// For tables of first, last, stride, delta.
template <std::size_t kRows>
const int32_t* strided_row(const int32_t (&table)[kRows][4], uint32_t code_point) {
  const int32_t* row = row_of(table, code_point);
  if (row == nullptr) return nullptr;
  const auto value = static_cast<int32_t>(code_point);
  return value <= row[1] && (value - row[0]) % row[2] == 0 ? row : nullptr;
}

template <std::size_t kRows>
bool append_special(const int32_t (&table)[kRows][4], uint32_t code_point, std::string& out) {
  const int32_t* row = row_of(table, code_point);
  if (row == nullptr || row[0] != static_cast<int32_t>(code_point)) return false;
  for (int i = 1; i < 4 && row[i] != 0; ++i) append_utf8(out, static_cast<uint32_t>(row[i]));
  return true;
}

template <std::size_t kRows>
void append_shifted(const int32_t (&table)[kRows][4], uint32_t code_point, std::string& out) {
  const int32_t* row = strided_row(table, code_point);
  const int32_t delta = row == nullptr ? 0 : row[3];
  append_utf8(out, static_cast<uint32_t>(static_cast<int32_t>(code_point) + delta));
}

void append_upper(uint32_t code_point, std::string& out) {
  if (!append_special(kSpecialUpper, code_point, out)) append_shifted(kUpper, code_point, out);
}

void append_title(uint32_t code_point, std::string& out) {
  if (!append_special(kSpecialTitle, code_point, out)) append_upper(code_point, out);
}

bool is_cased(uint32_t code_point) { return is_lower(code_point) || is_upper(code_point); }

// The common members of Unicode's Case_Ignorable, which the rule of the final sigma skips.
bool is_case_ignorable(uint32_t c) {
  return c == '\'' || c == '.' || c == ':' || c == '^' || c == '`' || c == 0xAD || c == 0xB7 ||
         c == 0x2018 || c == 0x2019 || (c >= 0x300 && c < 0x370);
}

// Lower-cases character after character, knowing what came before: a capital sigma is final if a
// cased letter stands before it and none after it.
class Lowering {
 public:
  explicit Lowering(std::string_view text) : text_(text) {}
  void see(uint32_t code_point) {
    if (!is_case_ignorable(code_point)) after_cased_ = is_cased(code_point);
  }
  void append(uint32_t code_point, std::size_t i, std::string& out) {
    constexpr uint32_t kCapitalSigma = 0x3A3, kFinalSigma = 0x3C2, kDottedCapitalI = 0x130;
    if (code_point == kDottedCapitalI) {
      out += "i\xCC\x87";
    } else if (code_point == kCapitalSigma && after_cased_ && !cased_follows(i + 2)) {
      append_utf8(out, kFinalSigma);
    } else {
      append_shifted(kLower, code_point, out);
    }
    see(code_point);
  }

 private:
  bool cased_follows(std::size_t i) const {
    while (i < text_.size()) {
      const CodePoint c = code_point_at(text_, i);
      if (!is_case_ignorable(c.value)) return is_cased(c.value);
      i += static_cast<std::size_t>(c.length);
    }
    return false;
  }

  std::string_view text_;
  bool after_cased_ = false;
};

// Calls f(code point, offset) and copies what is no character.
template <typename F>
std::string mapped(std::string_view text, F f) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text, i);
    if (c.value == kInvalid) {
      out += text[i];
    } else {
      f(c.value, i, out);
    }
    i += static_cast<std::size_t>(c.length);
  }
  return out;
}

}  // namespace

int64_t count_characters(std::string_view text) {
  int64_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++count) {
    i += static_cast<std::size_t>(code_point_at(text, i).length);
  }
  return count;
}

std::size_t offset_of(std::string_view text, int64_t index) {
  std::size_t i = 0;
  for (; i < text.size() && index > 0; --index) {
    i += static_cast<std::size_t>(code_point_at(text, i).length);
  }
  return i;
}

bool is_space(uint32_t c) {
  return (c >= 0x9 && c <= 0xD) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_printable(uint32_t code_point) {
  const int32_t* row = row_of(kNotPrintable, code_point);
  return row == nullptr || static_cast<int32_t>(code_point) > row[1];
}

bool is_lower(uint32_t code_point) { return strided_row(kLowerCased, code_point) != nullptr; }
bool is_upper(uint32_t code_point) { return strided_row(kUpperCased, code_point) != nullptr; }

std::string to_upper(std::string_view text) {
  return mapped(text, [](uint32_t c, std::size_t, std::string& out) { append_upper(c, out); });
}

std::string to_lower(std::string_view text) {
  Lowering lowering(text);
  return mapped(text,
                [&](uint32_t c, std::size_t i, std::string& out) { lowering.append(c, i, out); });
}

std::string capitalize(std::string_view text) {
  Lowering lowering(text);
  return mapped(text, [&](uint32_t c, std::size_t i, std::string& out) {
    if (i > 0) return lowering.append(c, i, out);
    append_title(c, out);
    lowering.see(c);
  });
}

std::string title_words(std::string_view text) {
  Lowering lowering(text);
  bool inside = false;
  return mapped(text, [&](uint32_t c, std::size_t i, std::string& out) {
    if (inside) {
      lowering.append(c, i, out);
    } else {
      append_title(c, out);
      lowering.see(c);
    }
    inside = is_cased(c);
  });
}

Range strip(std::string_view text, const std::string_view* set, bool left, bool right) {
  const auto matches = [&](std::size_t i, const CodePoint& c) {
    if (set == nullptr) return is_space(c.value);
    const std::string_view wanted = text.substr(i, static_cast<std::size_t>(c.length));
    for (std::size_t k = 0; k < set->size();) {
      const auto length = static_cast<std::size_t>(code_point_at(*set, k).length);
      if (set->substr(k, length) == wanted) return true;
      k += length;
    }
    return false;
  };
  Range range{0, text.size()};
  while (left && range.begin < range.end) {
    const CodePoint c = code_point_at(text, range.begin);
    if (!matches(range.begin, c)) break;
    range.begin += static_cast<std::size_t>(c.length);
  }
  while (right && range.end > range.begin) {
    std::size_t start = range.end - 1;
    // Back over at most three continuation bytes to where a character of just this length starts.
    for (std::size_t back = 1; back <= 4 && range.begin + back <= range.end; ++back) {
      const std::size_t candidate = range.end - back;
      if (candidate + static_cast<std::size_t>(code_point_at(text, candidate).length) ==
          range.end) {
        start = candidate;
        if (back > 1 || static_cast<unsigned char>(text[candidate]) < 0x80) break;
      }
    }
    if (!matches(start, code_point_at(text, start))) break;
    range.end = start;
  }
  return range;
}

std::size_t line_end_length(std::string_view text, std::size_t i) {
  const CodePoint c = code_point_at(text, i);
  if (c.value == '\r') return i + 1 < text.size() && text[i + 1] == '\n' ? 2 : 1;
  const bool ends = (c.value >= 0xA && c.value <= 0xC) || (c.value >= 0x1C && c.value <= 0x1E) ||
                    c.value == 0x85 || c.value == 0x2028 || c.value == 0x2029;
  return ends ? static_cast<std::size_t>(c.length) : 0;
}

}  // namespace crumb::tokenizer::jinja

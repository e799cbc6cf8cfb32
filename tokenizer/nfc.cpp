#include "tokenizer/nfc.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "tokenizer/nfc_tables.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer {
namespace {

// Hangul syllables compose by arithmetic (Unicode 3.12).
constexpr uint32_t kS = 0xAC00, kL = 0x1100, kV = 0x1161, kT = 0x11A7;
constexpr uint32_t kLCount = 19, kVCount = 21, kTCount = 28, kSCount = kLCount * kVCount * kTCount;

constexpr uint32_t kRawByte = 0x80000000;  // + a byte that is no UTF-8

struct Mark {
  uint32_t value;
  uint8_t combining_class;
};

uint8_t class_of(uint32_t value) {
  if (value < 0x300) return 0;
  const auto ranges = combining_ranges();
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), value,
      [](uint32_t point, const CombiningRange& range) { return point < range.first; });
  if (after == ranges.begin() || value > (after - 1)->last) return 0;
  return (after - 1)->combining_class;
}

const Decomposition* find_decomposition(uint32_t value) {
  if (value < 0xC0) return nullptr;
  const auto table = decompositions();
  const auto found =
      std::lower_bound(table.begin(), table.end(), value,
                       [](const Decomposition& row, uint32_t point) { return row.whole < point; });
  return found != table.end() && found->whole == value ? &*found : nullptr;
}

void append_decomposed(std::vector<Mark>& out, uint32_t value) {
  if (value - kS < kSCount) {
    const uint32_t index = value - kS;
    out.push_back({kL + index / (kVCount * kTCount), 0});
    out.push_back({kV + index % (kVCount * kTCount) / kTCount, 0});
    if (index % kTCount != 0) out.push_back({kT + index % kTCount, 0});
    return;
  }
  // The second part never decomposes further; the first may.
  std::vector<uint32_t> tail;
  const Decomposition* step = find_decomposition(value);
  for (; step != nullptr; step = find_decomposition(value)) {
    if (step->second != 0) tail.push_back(step->second);
    value = step->first;
  }
  out.push_back({value, class_of(value)});
  for (; !tail.empty(); tail.pop_back()) out.push_back({tail.back(), class_of(tail.back())});
}

std::vector<Mark> decomposed(std::string_view text) {
  std::vector<Mark> out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint found = code_point_at(text, i);
    if (found.value == kNoCodePoint)
      out.push_back({kRawByte | static_cast<uint8_t>(text[i]), 0});
    else
      append_decomposed(out, found.value);
    i += static_cast<std::size_t>(found.length);
  }
  return out;
}

void order_marks(std::vector<Mark>& text) {
  const auto by_class = [](const Mark& a, const Mark& b) {
    return a.combining_class < b.combining_class;
  };
  for (auto begin = text.begin(); begin != text.end();) {
    const auto end =
        std::find_if(begin, text.end(), [](const Mark& m) { return m.combining_class == 0; });
    std::stable_sort(begin, end, by_class);
    begin = end == text.end() ? end : end + 1;
  }
}

// 0 if the two do not compose.
uint32_t composed(uint32_t first, uint32_t second) {
  if (first - kL < kLCount && second - kV < kVCount)
    return kS + ((first - kL) * kVCount + (second - kV)) * kTCount;
  if (first - kS < kSCount && (first - kS) % kTCount == 0 && second - kT - 1 < kTCount - 1)
    return first + (second - kT);
  const auto table = compositions();
  const auto found = std::lower_bound(table.begin(), table.end(), std::pair(first, second),
                                      [](const Decomposition& row, const auto& pair) {
                                        return std::pair(row.first, row.second) < pair;
                                      });
  if (found == table.end() || found->first != first || found->second != second) return 0;
  return found->whole;
}

// In place: a mark joins the last starter unless one of its class, or a starter, stands between.
void compose(std::vector<Mark>& text) {
  std::size_t out = 0, starter = 0;
  bool has_starter = false;
  int last_class = -1;  // of what stands between the starter and the mark at hand; -1: nothing
  for (const Mark mark : text) {
    if (has_starter && last_class < mark.combining_class) {
      const uint32_t whole = composed(text[starter].value, mark.value);
      if (whole != 0) {
        text[starter].value = whole;
        continue;
      }
    }
    if (mark.combining_class == 0) {
      has_starter = true;
      starter = out;
      last_class = -1;
    } else {
      last_class = mark.combining_class;
    }
    text[out++] = mark;
  }
  text.resize(out);
}

}  // namespace

bool may_change_in_nfc(std::string_view text) {
  // U+0300 is CC 80: lead bytes below CC are Latin letters, which are in NFC.
  return std::any_of(text.begin(), text.end(),
                     [](char byte) { return static_cast<uint8_t>(byte) >= 0xCC; });
}

std::string to_nfc(std::string_view text) {
  std::vector<Mark> marks = decomposed(text);
  order_marks(marks);
  compose(marks);
  std::string out;
  out.reserve(text.size());
  for (const Mark& mark : marks) {
    if ((mark.value & kRawByte) != 0)
      out += static_cast<char>(mark.value & 0xFF);
    else
      append_utf8(out, mark.value);
  }
  return out;
}

}  // namespace crumb::tokenizer

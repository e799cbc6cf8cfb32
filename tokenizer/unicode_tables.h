// The Unicode classes that pre-tokenizers ask for, as generated ranges.
#pragma once
#include <cstdint>
#include <span>

namespace crumb::tokenizer {

enum class CharClass : uint8_t {
  kOther,
  kLetter,  // general category L*, \p{L}
  kNumber,  // general category N*, \p{N}
  kSpace,   // the White_Space property, \s
};

struct ClassRange {
  uint32_t first, last;  // both inside
  CharClass char_class;
};

// Sorted, disjoint; whatever lies in none of them is kOther.
std::span<const ClassRange> class_ranges();

}  // namespace crumb::tokenizer

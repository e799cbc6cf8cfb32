// What normal form C needs of the Unicode character database, as generated tables.
#pragma once
#include <cstdint>
#include <span>

namespace crumb::tokenizer {

struct CombiningRange {
  uint32_t first, last;  // both inside
  uint8_t combining_class;
};
// A code point and the one or two (second 0) it stands for, or the one that two compose to.
struct Decomposition {
  uint32_t whole, first, second;
};

std::span<const CombiningRange> combining_ranges();  // ascending; whatever is in none has class 0
std::span<const Decomposition> decompositions();     // ascending by `whole`; one step, no Hangul
std::span<const Decomposition> compositions();       // ascending by (first, second)

}  // namespace crumb::tokenizer

// Regular expressions, parsed; for json_*.cpp only.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace crumb::json {

// Code points as sorted ranges that do not touch.
struct Range {
  char32_t first, last;
};
using Class = std::vector<Range>;

Class normal(Class ranges);

struct RegexNode {
  enum class Kind : uint8_t { kClass, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;
  std::vector<int32_t> parts;  // kRepeat: one
  std::size_t set = 0;         // kClass
  int32_t low = 0, high = 0;   // kRepeat
};

struct Regex {
  std::vector<RegexNode> nodes;
  std::vector<Class> sets;
  int32_t root = 0;  // matches whole strings: what is not anchored has anything around it
};

// Throws PatternError (json_pattern.h, which says what is supported).
Regex parse_regex(std::string_view pattern);

}  // namespace crumb::json

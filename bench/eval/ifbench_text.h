// Small text functions of the IFBench checkers, and their two tables. Internal to ifbench_*.cpp.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "bench/eval/instructions.h"

namespace crumb::eval {

// Python's string.punctuation, and the same with a space.
inline constexpr TextView kPunctuation = U"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
inline constexpr TextView kPunctuationOrSpace = U" !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

inline bool is_in(char32_t c, TextView set) { return set.find(c) != TextView::npos; }
inline bool contains(TextView text, TextView part) { return text.find(part) != TextView::npos; }

inline Text without_punctuation(TextView text) {
  Text kept(text);
  std::erase_if(kept, [](char32_t c) { return is_in(c, kPunctuation); });
  return kept;
}
inline TextView strip_left(TextView text, TextView set) {
  while (!text.empty() && is_in(text.front(), set)) text.remove_prefix(1);
  return text;
}
inline TextView strip_right(TextView text, TextView set) {
  while (!text.empty() && is_in(text.back(), set)) text.remove_suffix(1);
  return text;
}
inline TextView strip_both(TextView text, TextView set) {
  return strip_left(strip_right(text, set), set);
}

inline std::vector<TextView> lines_of(TextView text) { return split(text, U"\n"); }

inline std::vector<TextView> digit_runs(TextView text) {
  std::vector<TextView> found;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && is_digit(text[end])) ++end;
    if (end > i) found.push_back(text.substr(i, end - i));
    i = std::max(end, i + 1);
  }
  return found;
}

// Kinds of format, custom and repeat.
std::span<const Checker> ifbench_format_checkers();

}  // namespace crumb::eval

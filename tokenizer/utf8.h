// UTF-8 by hand: decoding, and a stream that never emits half a character. Well-formed is what
// table 3-7 of the Unicode standard says: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace crumb::tokenizer {

inline constexpr uint32_t kNoCodePoint = 0xFFFFFFFF;

// One code point at text[i], i < text.size(); length 1 and value kNoCodePoint for a byte that
// starts no valid sequence.
struct CodePoint {
  uint32_t value = 0;
  int length = 1;
};
CodePoint code_point_at(std::string_view text, std::size_t i);

// What is no scalar value (surrogates, above U+10FFFF) is written as U+FFFD.
void append_utf8(std::string& out, uint32_t code_point);

// Collects token bytes and gives out whole characters only. However the bytes are cut into pushes,
// the outputs joined are the same: each maximal subpart of an ill-formed sequence (the longest
// start of a well-formed one, else one byte) becomes one U+FFFD, as Unicode 3.9 recommends and as
// Python's errors="replace" and Rust's from_utf8_lossy do.
class Utf8Stream {
 public:
  // Returns what is complete now; invalid bytes become U+FFFD, an unfinished tail is held back.
  std::string push(std::string_view bytes);
  // The held tail at the end of the stream, as one U+FFFD if there is one. Leaves the stream empty.
  std::string finish();

 private:
  std::string tail_;  // at most 3 bytes: the start of a well-formed sequence
};

// All of it at once: a stream's push and finish.
std::string replace_invalid_utf8(std::string_view bytes);

}  // namespace crumb::tokenizer

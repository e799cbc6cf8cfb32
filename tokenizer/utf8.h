// UTF-8 by hand: decoding, and a stream that never emits half a character.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace crumb::tokenizer {

// One code point at text[i]; length 1 and value 0xFFFFFFFF for a byte that starts no valid sequence.
struct CodePoint {
  uint32_t value = 0;
  int length = 1;
};
CodePoint code_point_at(std::string_view text, std::size_t i);
void append_utf8(std::string& out, uint32_t code_point);

// Collects token bytes and gives out whole characters only.
class Utf8Stream {
 public:
  // Returns what is complete now; invalid bytes become U+FFFD, an unfinished tail is held back.
  std::string push(std::string_view bytes);
  // The held tail at the end of the stream, as one U+FFFD if there is one.
  std::string finish();

 private:
  std::string tail_;
};

}  // namespace crumb::tokenizer

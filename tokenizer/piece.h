// A part of a normalized text, as the cuts of SentencePiece models give it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace crumb::tokenizer {

struct Piece {
  int32_t id;  // -1: a character that no piece covers
  std::string_view text;
};

// Bytes of the character at `first`, as the sentencepiece library counts them.
inline std::size_t character_bytes(char first) {
  const auto byte = static_cast<uint8_t>(first);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace crumb::tokenizer

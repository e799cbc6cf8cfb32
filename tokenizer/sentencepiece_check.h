// What must hold before the sentencepiece library sees a model. The library trusts its models: long
// pieces overflow its stack, more nested symbols than its result arrays hold and a damaged
// normalizer trie are read out of bounds.
#pragma once
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

inline constexpr std::size_t kMaxPieces = 1 << 20;
inline constexpr std::size_t kMaxPieceBytes = 4096;
inline constexpr std::size_t kMaxCharsmapBytes = 4 << 20;

// Pieces: not empty, no NUL, UTF-8, at most kMaxPieceBytes, each once; scores finite; at most one
// unknown token; all 256 byte tokens or none, written <0xHH> in capitals, and no other piece
// spelled like one; at most 64 user-defined symbols that begin one another. Throws
// std::invalid_argument.
void check_pieces(const TokenizerData& data);

// A precompiled normalizer: u32 size of the trie, the trie (a double array of Darts-clone), then
// the replacements, each ended by a NUL. Every step that a lookup could take stays inside, there is
// no circle, no lookup finds more than 32 matches, every match names a replacement, and the
// replacements are UTF-8. Empty is allowed. Throws std::invalid_argument.
void check_charsmap(std::string_view charsmap);

}  // namespace crumb::tokenizer

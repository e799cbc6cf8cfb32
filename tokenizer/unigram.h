// The most likely cut of a text into pieces (Kudo, "Subword Regularization", 2018; Viterbi over the
// characters). The sentencepiece library of Debian 12 (0.1.97) compares a sum in double precision
// with one rounded to single, so that of cuts equally likely it takes others than later versions
// do; this one sums in single precision throughout, as 0.2.3 does, and gives its ids.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/piece.h"
#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

class Unigram {
 public:
  // Keeps views of data.tokens, which must outlive this. Normal and user-defined pieces count; a
  // user-defined one wins over every cut of its text.
  explicit Unigram(const TokenizerData& data);

  // Of normalised UTF-8. Steps: characters times the length of the longest piece that starts there.
  std::vector<Piece> cut(std::string_view text) const;

 private:
  struct Entry {
    std::string_view text;
    int32_t id;
    float score;
  };
  // The entries in [begin, end) start with the same `depth` bytes.
  struct Range {
    uint32_t begin = 0, end = 0;
  };
  Range narrowed(Range range, std::size_t depth, char byte) const;

  std::vector<Entry> entries_;       // sorted by text
  std::array<Range, 256> by_first_;  // of the first byte
  float unknown_score_ = 0;
};

}  // namespace crumb::tokenizer

// What must hold of a byte-level BPE vocabulary, beside what make_tokenizer checks for every kind.
// bench/micro/load_bench.cpp measures what it costs.
#pragma once
#include <cstdint>
#include <vector>

#include "tokenizer/flat_index.h"
#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

// The texts of tokens, short ones as numbers: compared and hashed at once, and near each other. As
// strings they took half of the time of all checks.
class ShortTexts {
 public:
  explicit ShortTexts(const TokenizerData& data);
  uint64_t hash(int32_t id) const;  // hash_text() of the text
  bool same(int32_t a, int32_t b) const;
  bool joins(int32_t joined, int32_t head, int32_t tail) const;  // whether it is the two, joined

 private:
  static constexpr std::size_t kBytes = 16;  // of a short one
  const TokenizerData& data_;
  std::vector<TextHead> heads_;  // [V]
  std::vector<uint32_t> sizes_;  // [V]
};

// All tokens by hash_text of their text. Throws std::invalid_argument for a text that is there
// twice.
FlatIndex index_tokens(const TokenizerData& data, const ShortTexts& texts);

// Every merge joins the texts of its two parts, and none makes a control token. Throws
// std::invalid_argument.
void check_merges(const TokenizerData& data, const ShortTexts& texts);

}  // namespace crumb::tokenizer

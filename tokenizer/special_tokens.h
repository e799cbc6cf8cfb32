// The control and user-defined tokens of a vocabulary, and finding them in text.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

class SpecialTokens {
 public:
  // Keeps views of data.tokens, which must outlive this. Empty tokens are never found. Throws
  // std::invalid_argument for one of more than kMaxBytes.
  explicit SpecialTokens(const TokenizerData& data);
  // Only the tokens of one type.
  SpecialTokens(const TokenizerData& data, TokenType type);

  struct Match {
    int32_t id = -1;  // -1: none starts there
    std::size_t length = 0;
  };
  // The longest one that text[begin..] starts with. Takes at most kMaxBytes steps, one for most
  // texts: looking at every place is linear.
  Match longest_at(std::string_view text, std::size_t begin) const;

  static constexpr std::size_t kMaxBytes = 512;

 private:
  void add(const TokenizerData& data, TokenType type);

  std::vector<std::pair<std::string_view, int32_t>> sorted_;  // by text
  std::array<bool, 256> starts_{};                            // bytes that some token starts with
};

}  // namespace crumb::tokenizer

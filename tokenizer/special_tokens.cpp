#include "tokenizer/special_tokens.h"

#include <algorithm>
#include <string>

#include "tokenizer/reject.h"

namespace crumb::tokenizer {

SpecialTokens::SpecialTokens(const TokenizerData& data) {
  add(data, TokenType::kControl);
  add(data, TokenType::kUserDefined);
  std::sort(sorted_.begin(), sorted_.end());
}

SpecialTokens::SpecialTokens(const TokenizerData& data, TokenType type) {
  add(data, type);
  std::sort(sorted_.begin(), sorted_.end());
}

void SpecialTokens::add(const TokenizerData& data, TokenType type) {
  for (int32_t id = 0; id < std::ssize(data.tokens); ++id) {
    const std::string& text = data.tokens[id];
    if (data.types[id] != type || text.empty()) continue;
    if (text.size() > kMaxBytes) {
      reject("special token too long", "tokens[" + std::to_string(id) + "]",
             "at most " + std::to_string(kMaxBytes) + " bytes", std::to_string(text.size()));
    }
    sorted_.emplace_back(text, id);
    starts_[static_cast<uint8_t>(text[0])] = true;
  }
}

// A trie walk over the sorted array: [low, high) are the tokens that begin with what was read.
SpecialTokens::Match SpecialTokens::longest_at(std::string_view text, std::size_t begin) const {
  Match best;
  if (!starts_[static_cast<uint8_t>(text[begin])]) return best;
  auto low = sorted_.begin();
  auto high = sorted_.end();
  for (std::size_t depth = 0; begin + depth < text.size(); ++depth) {
    const char wanted = text[begin + depth];
    const auto byte_at = [depth](const auto& entry) {
      // -1: shorter tokens sort before their extensions.
      return depth < entry.first.size() ? static_cast<int>(static_cast<uint8_t>(entry.first[depth]))
                                        : -1;
    };
    const int byte = static_cast<uint8_t>(wanted);
    low = std::partition_point(low, high, [&](const auto& entry) { return byte_at(entry) < byte; });
    high =
        std::partition_point(low, high, [&](const auto& entry) { return byte_at(entry) == byte; });
    if (low == high) break;
    if (low->first.size() == depth + 1) best = {low->second, depth + 1};
  }
  return best;
}

}  // namespace crumb::tokenizer

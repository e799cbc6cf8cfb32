// The vocabulary by bytes, to walk all tokens that share a beginning at once.
#pragma once
#include <cstdint>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace crumb {

class TokenTrie {
 public:
  // Tokens without bytes, and control tokens, are left out.
  explicit TokenTrie(const tokenizer::Tokenizer& tokenizer);

  struct Node {
    int32_t child = -1, sibling = -1;  // first child; next one of the same parent
    int32_t token = -1;                // that ends here; of several with equal bytes the lowest id
    uint8_t byte = 0;
  };
  const Node& node(int32_t index) const { return nodes_[static_cast<std::size_t>(index)]; }
  static constexpr int32_t kRoot = 0;

 private:
  std::vector<Node> nodes_;
};

}  // namespace crumb

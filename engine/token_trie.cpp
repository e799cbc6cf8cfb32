#include "engine/token_trie.h"

#include <algorithm>
#include <numeric>
#include <string_view>

namespace crumb {

// Tokens in the order of their bytes: each shares its beginning with the path of the one before.
TokenTrie::TokenTrie(const tokenizer::Tokenizer& tokenizer) : nodes_(1) {
  std::vector<int32_t> order(static_cast<std::size_t>(tokenizer.size()));
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(
      order, [&](int32_t id) { return tokenizer.is_control(id) || tokenizer.bytes(id).empty(); });
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return tokenizer.bytes(a) < tokenizer.bytes(b); });
  std::vector<int32_t> path = {kRoot}, last_child = {-1};  // of the path's nodes
  std::string_view before;
  for (const int32_t id : order) {
    const std::string_view bytes = tokenizer.bytes(id);
    const auto shared = static_cast<std::size_t>(
        std::mismatch(before.begin(), before.end(), bytes.begin(), bytes.end()).first -
        before.begin());
    path.resize(shared + 1);
    last_child.resize(shared + 1);
    for (std::size_t i = shared; i < bytes.size(); ++i) {
      const auto made = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({-1, -1, -1, static_cast<uint8_t>(bytes[i])});
      if (last_child.back() < 0)
        nodes_[static_cast<std::size_t>(path.back())].child = made;
      else
        nodes_[static_cast<std::size_t>(last_child.back())].sibling = made;
      last_child.back() = made;
      path.push_back(made);
      last_child.push_back(-1);
    }
    Node& end = nodes_[static_cast<std::size_t>(path.back())];
    if (end.token < 0) end.token = id;
    before = bytes;
  }
  nodes_.shrink_to_fit();
}

}  // namespace crumb

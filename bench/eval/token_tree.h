// Token sequences that begin alike, as a tree: what they have in common is read once.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace crumb::eval {

// After a token of the tree: somebody wants log P of `target` there. `owner` and `place` are the
// caller's.
struct Wanted {
  int32_t target = 0;
  std::size_t owner = 0, place = 0;
};

// Tokens that follow each other without a branch. Their logits are wanted at none of them, at the
// last one only, or at all.
struct TokenRun {
  enum class Logits : uint8_t { kNone, kLast, kAll };
  int32_t parent = -1;            // index of the run before, -1: the sequence begins here
  int64_t start = 0;              // position of the first token
  int64_t level = 0;              // runs before it
  std::vector<int32_t> tokens;    // at least one
  std::vector<int32_t> nodes;     // of each token, for wanted()
  std::vector<int32_t> children;  // indices of runs, in the order they were added
  Logits logits = Logits::kNone;
};

class TokenTree {
 public:
  // Adds a sequence, of which wanted[i] is asked after token first + i; tokens.size() ==
  // first + wanted.size(), at least one of each.
  void add(std::span<const int32_t> tokens, std::size_t first, std::span<const Wanted> wanted);
  // Parents before their children.
  std::vector<TokenRun> runs() const;
  std::span<const Wanted> wanted(int32_t node) const {
    return nodes_[static_cast<std::size_t>(node)].wanted;
  }

 private:
  struct Node {
    int32_t token = -1;
    std::vector<int32_t> children;
    std::vector<Wanted> wanted;
  };
  int32_t child(int32_t node, int32_t token);

  std::vector<Node> nodes_ = {{}};  // [0]: before the first token
};

}  // namespace crumb::eval

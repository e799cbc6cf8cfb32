#include "bench/eval/token_tree.h"

#include <algorithm>
#include <cassert>

namespace crumb::eval {
namespace {

constexpr std::size_t size_of(int32_t i) { return static_cast<std::size_t>(i); }

}  // namespace

int32_t TokenTree::child(int32_t node, int32_t token) {
  for (const int32_t next : nodes_[size_of(node)].children)
    if (nodes_[size_of(next)].token == token) return next;
  const auto next = static_cast<int32_t>(nodes_.size());
  nodes_.push_back({token, {}, {}});
  nodes_[size_of(node)].children.push_back(next);
  return next;
}

void TokenTree::add(std::span<const int32_t> tokens, std::size_t first,
                    std::span<const Wanted> wanted) {
  assert(tokens.size() == first + wanted.size() && !wanted.empty());
  int32_t node = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    node = child(node, tokens[i]);
    if (i >= first) nodes_[size_of(node)].wanted.push_back(wanted[i - first]);
  }
}

std::vector<TokenRun> TokenTree::runs() const {
  using Logits = TokenRun::Logits;
  std::vector<TokenRun> all;
  struct Begin {
    int32_t node, parent;
  };
  std::vector<Begin> left;
  const auto branch = [&](int32_t node, int32_t parent) {
    const auto& children = nodes_[size_of(node)].children;
    for (auto next = children.rbegin(); next != children.rend(); ++next)
      left.push_back({*next, parent});
  };
  branch(0, -1);
  while (!left.empty()) {
    const auto [first, parent] = left.back();
    left.pop_back();
    TokenRun run;
    run.parent = parent;
    if (parent >= 0) {
      TokenRun& before = all[size_of(parent)];
      before.children.push_back(static_cast<int32_t>(all.size()));
      run.start = before.start + std::ssize(before.tokens);
      run.level = before.level + 1;
    }
    const bool all_wanted = !nodes_[size_of(first)].wanted.empty();
    run.logits = all_wanted ? Logits::kAll : Logits::kNone;
    for (int32_t node = first;; node = nodes_[size_of(node)].children.front()) {
      run.tokens.push_back(nodes_[size_of(node)].token);
      run.nodes.push_back(node);
      const Node& here = nodes_[size_of(node)];
      if (!all_wanted && !here.wanted.empty()) run.logits = Logits::kLast;
      if (run.logits == Logits::kLast || here.children.size() != 1) break;
      if (all_wanted && nodes_[size_of(here.children.front())].wanted.empty()) break;
    }
    all.push_back(std::move(run));
    branch(all.back().nodes.back(), static_cast<int32_t>(all.size()) - 1);
  }
  return all;
}

}  // namespace crumb::eval

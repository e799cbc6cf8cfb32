#include "bench/eval/token_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace crumb::eval {
namespace {

using Logits = TokenRun::Logits;
using testing::ElementsAre;

std::vector<int32_t> path_of(const std::vector<TokenRun>& runs, std::size_t i) {
  std::vector<int32_t> path;
  if (runs[i].parent >= 0) path = path_of(runs, static_cast<std::size_t>(runs[i].parent));
  EXPECT_EQ(std::ssize(path), runs[i].start);
  path.insert(path.end(), runs[i].tokens.begin(), runs[i].tokens.end());
  return path;
}

TEST(TokenTree, ChoicesShareTheirContext) {
  TokenTree tree;
  const Wanted a[] = {{10, 0, 0}, {11, 0, 1}}, b[] = {{20, 1, 0}};
  tree.add(std::vector<int32_t>{1, 2, 3, 10}, 2, a);
  tree.add(std::vector<int32_t>{1, 2, 3}, 2, b);
  const auto runs = tree.runs();
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_THAT(runs[0].tokens, ElementsAre(1, 2, 3));
  EXPECT_EQ(runs[0].logits, Logits::kLast);
  EXPECT_EQ(tree.wanted(runs[0].nodes.back()).size(), 2u);
  EXPECT_THAT(runs[1].tokens, ElementsAre(10));
  EXPECT_EQ(runs[1].logits, Logits::kAll);
  EXPECT_EQ(runs[1].parent, 0);
  EXPECT_EQ(runs[1].level, 1);
}

// Against the obvious: every position of every sequence by itself.
TEST(TokenTree, EveryWantedTokenStandsBehindItsSequence) {
  uint32_t state = 7;
  const auto draw = [&](uint32_t n) {
    return (state = state * 1664525u + 1013904223u) >> 16 & (n - 1);
  };
  for (int round = 0; round < 50; ++round) {
    TokenTree tree;
    std::map<std::pair<std::size_t, std::size_t>, std::vector<int32_t>> before;
    for (std::size_t owner = 0; owner < 12; ++owner) {
      std::vector<int32_t> tokens;
      for (uint32_t i = 0; i <= draw(8); ++i) tokens.push_back(static_cast<int32_t>(draw(2)));
      const std::size_t first = draw(8) % tokens.size();
      std::vector<Wanted> wanted;
      for (std::size_t place = 0; first + place < tokens.size(); ++place) {
        wanted.push_back({5, owner, place});
        before[{owner, place}] = {tokens.begin(),
                                  tokens.begin() + static_cast<std::ptrdiff_t>(first + place + 1)};
      }
      tree.add(tokens, first, wanted);
    }
    const auto runs = tree.runs();
    std::size_t found = 0;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      ASSERT_LT(runs[i].parent, static_cast<int32_t>(i));
      const auto path = path_of(runs, i);
      for (std::size_t t = 0; t < runs[i].tokens.size(); ++t) {
        const auto wanted = tree.wanted(runs[i].nodes[t]);
        const bool logits = runs[i].logits == Logits::kAll ||
                            (runs[i].logits == Logits::kLast && t + 1 == runs[i].tokens.size());
        EXPECT_EQ(logits, !wanted.empty());
        for (const Wanted& one : wanted) {
          ++found;
          EXPECT_EQ(before.at({one.owner, one.place}),
                    std::vector<int32_t>(path.begin(), path.begin() + runs[i].start +
                                                           static_cast<std::ptrdiff_t>(t) + 1));
        }
      }
    }
    EXPECT_EQ(found, before.size());
  }
}

}  // namespace
}  // namespace crumb::eval

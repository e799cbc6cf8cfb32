#include "bench/eval/paired.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace crumb::eval {
namespace {

std::vector<Pair> binary(int both, int won, int lost, int neither) {
  std::vector<Pair> pairs;
  pairs.insert(pairs.end(), static_cast<std::size_t>(both), {1, 1, 1, 1});
  pairs.insert(pairs.end(), static_cast<std::size_t>(won), {1, 1, 0, 1});
  pairs.insert(pairs.end(), static_cast<std::size_t>(lost), {0, 1, 1, 1});
  pairs.insert(pairs.end(), static_cast<std::size_t>(neither), {0, 1, 0, 1});
  return pairs;
}

TEST(Paired, CountsFlipsAndKappa) {
  // Cohen's own kind of table: 20 both, 5 and 10 apart, 15 neither: kappa 0.4.
  const auto result = compare_pairs(binary(20, 5, 10, 15), 1);
  ASSERT_TRUE(result.flips);
  EXPECT_EQ(result.flips->won, 5);
  EXPECT_EQ(result.flips->lost, 10);
  EXPECT_NEAR(result.flips->agreement, 0.7, 1e-12);
  EXPECT_NEAR(*result.flips->kappa, 0.4, 1e-12);
  EXPECT_NEAR(result.reference, 0.6, 1e-12);
  EXPECT_NEAR(result.delta, -0.1, 1e-12);
  // sd of +1, -1, 0 with n - 1, over sqrt(n).
  const double squares = 15 - 50 * 0.1 * 0.1;
  EXPECT_NEAR(result.error, std::sqrt(squares / 49 / 50), 1e-12);
}

TEST(Paired, SignTestIsTheExactBinomial) {
  EXPECT_EQ(sign_test(0, 0), 1);
  EXPECT_EQ(sign_test(3, 3), 1);
  EXPECT_NEAR(sign_test(0, 5), 2.0 / 32, 1e-12);
  EXPECT_NEAR(sign_test(5, 0), 2.0 / 32, 1e-12);
  EXPECT_NEAR(sign_test(1, 4), 2.0 * 6 / 32, 1e-12);
  EXPECT_NEAR(sign_test(2, 3), 1, 1e-12);
  EXPECT_LT(sign_test(16, 68), 1e-7);
}

TEST(Paired, KappaIsUndefinedWhereChanceAlwaysAgrees) {
  const auto result = compare_pairs(binary(0, 0, 0, 4), 1);
  EXPECT_FALSE(result.flips->kappa);
  EXPECT_EQ(result.flips->agreement, 1);
  EXPECT_EQ(result.delta, 0);
  EXPECT_EQ(result.error, 0);
}

TEST(Paired, BootstrapIsSeededAndCoversTheDelta) {
  const auto pairs = binary(200, 30, 60, 110);
  const auto a = compare_pairs(pairs, 1), b = compare_pairs(pairs, 1), c = compare_pairs(pairs, 2);
  EXPECT_EQ(a.interval, b.interval);
  EXPECT_NE(a.interval, c.interval);
  // Nearly normal here: the interval is delta +- 1.96 standard errors.
  EXPECT_NEAR(a.interval[0], a.delta - 1.96 * a.error, 0.15 * a.error);
  EXPECT_NEAR(a.interval[1], a.delta + 1.96 * a.error, 0.15 * a.error);
}

TEST(Paired, WeightedItems) {
  // 1 of 2 and 3 of 4 against 2 of 2 and 1 of 4.
  const std::vector<Pair> pairs = {{1, 2, 2, 2}, {3, 4, 1, 4}};
  const auto result = compare_pairs(pairs, 1);
  EXPECT_NEAR(result.delta, 4.0 / 6 - 3.0 / 6, 1e-12);
  EXPECT_FALSE(result.flips);
  // Linearised: (a_i - R w_i) / W - (b_i - S w_i) / W.
  const double d0 = (1 - 2 * 4.0 / 6) / 6 - (2 - 2 * 0.5) / 6;
  const double d1 = (3 - 4 * 4.0 / 6) / 6 - (1 - 4 * 0.5) / 6;
  EXPECT_NEAR(result.error, std::sqrt(2 * (d0 * d0 + d1 * d1)), 1e-12);
}

TEST(Paired, ItemsWithoutWeightDoNotBreakTheBootstrap) {
  const std::vector<Pair> pairs = {{1, 1, 0, 1}, {0, 0, 0, 0}, {0, 0, 0, 0}};
  const auto result = compare_pairs(pairs, 1, 100);
  EXPECT_EQ(result.delta, 1);
  EXPECT_EQ(result.interval[0], 1);
  EXPECT_EQ(result.interval[1], 1);
}

TEST(Spearman, RanksWithTies) {
  const std::vector<double> x = {1, 2, 3, 4}, up = {10, 20, 25, 90}, down = {4, 3, 2, 1};
  EXPECT_NEAR(*spearman(x, up), 1, 1e-12);
  EXPECT_NEAR(*spearman(x, down), -1, 1e-12);
  // Ranks 0, 1.5, 1.5, 3 against 0..3: covariance 4.5, variances 4.5 and 5.
  EXPECT_NEAR(*spearman(x, std::vector<double>{1, 2, 2, 3}), 4.5 / std::sqrt(4.5 * 5), 1e-12);
  EXPECT_FALSE(spearman(x, std::vector<double>{1, 1, 1, 1}));
  EXPECT_FALSE(spearman(std::vector<double>{1}, std::vector<double>{1}));
}

}  // namespace
}  // namespace crumb::eval

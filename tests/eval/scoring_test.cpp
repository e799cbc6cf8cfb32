#include "bench/eval/scoring.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace crumb::eval {
namespace {

std::vector<float> row(std::size_t n, uint32_t seed) {
  std::vector<float> x(n);
  uint32_t state = seed;
  for (float& v : x) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<float>(state >> 8) * 0x1p-24f * 20 - 10;
  }
  return x;
}

// The textbook formulas in long double, without any trick.
long double naive_lse(const std::vector<float>& x) {
  long double sum = 0;
  for (const float v : x) sum += std::exp(static_cast<long double>(v));
  return std::log(sum);
}
long double naive_kl(const std::vector<float>& p, const std::vector<float>& q) {
  const long double lse_p = naive_lse(p);
  const long double lse_q = naive_lse(q);
  long double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i)
    sum += std::exp(p[i] - lse_p) * ((p[i] - lse_p) - (q[i] - lse_q));
  return sum;
}

TEST(Scoring, LogSumExpAgreesWithTheFormula) {
  for (const std::size_t n : {1u, 2u, 100u, 49152u}) {
    const auto x = row(n, 7);
    EXPECT_NEAR(log_sum_exp(x), static_cast<double>(naive_lse(x)), 5e-7);
    EXPECT_NEAR(negative_log_likelihood(x, 0), static_cast<double>(naive_lse(x)) - x[0], 5e-7);
  }
}

TEST(Scoring, LogSumExpOfSteepAndFlatRows) {
  for (const float slope : {0.0f, 1e-4f, 0.01f, 1.0f, 30.0f, 1e6f}) {
    std::vector<float> x(1000);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 5 - slope * static_cast<float>(i * 7 % 1000);
    EXPECT_NEAR(log_sum_exp(x), static_cast<double>(naive_lse(x)), 5e-7) << slope;
  }
}

TEST(Scoring, LargeLogitsDoNotOverflow) {
  const std::vector<float> x = {3e38f, 3e38f, -3e38f};
  EXPECT_DOUBLE_EQ(log_sum_exp(x), static_cast<double>(3e38f));
  EXPECT_EQ(compare(x, x, 0).kld, 0);
}

TEST(Scoring, DivergenceAgreesWithTheFormula) {
  for (const std::size_t n : {2u, 50u, 4096u}) {
    const auto p = row(n, 1);
    const auto q = row(n, 2);
    const Divergence d = compare(p, q, 1);
    EXPECT_NEAR(d.kld, static_cast<double>(naive_kl(p, q)), 1e-10);
    EXPECT_NEAR(d.nll_base, static_cast<double>(naive_lse(p)) - p[1], 1e-11);
    EXPECT_NEAR(d.nll_model, static_cast<double>(naive_lse(q)) - q[1], 1e-11);
  }
}

TEST(Scoring, DivergenceIsZeroForEqualRowsAndBlindToAShift) {
  const auto p = row(1000, 3);
  EXPECT_EQ(compare(p, p, 5).kld, 0);
  auto shifted = p;
  for (float& v : shifted) v += 16;
  EXPECT_NEAR(compare(p, shifted, 5).kld, 0, 1e-6);
  EXPECT_GT(compare(p, row(1000, 4), 5).kld, 0.1);
}

TEST(Scoring, DivergenceByHand) {
  const auto log_of = [](double v) { return static_cast<float>(std::log(v)); };
  const std::vector<float> p = {log_of(0.5), log_of(0.25), log_of(0.25)};
  const std::vector<float> q = {log_of(0.25), log_of(0.5), log_of(0.25)};
  const Divergence d = compare(p, q, 0);
  EXPECT_NEAR(d.kld, 0.25 * std::log(2.0), 1e-6);
  EXPECT_NEAR(d.nll_base, std::log(2.0), 1e-6);
  EXPECT_NEAR(d.nll_model, std::log(4.0), 1e-6);
  EXPECT_FALSE(d.same_top);
}

TEST(Scoring, TopIsTheLowestIdOnTies) {
  const std::vector<float> p = {1, 5, 5, 0};
  const std::vector<float> q = {1, 5, 4, 0};
  const std::vector<float> r = {1, 4, 5, 0};
  EXPECT_TRUE(compare(p, q, 0).same_top);
  EXPECT_FALSE(compare(p, r, 0).same_top);
}

TEST(Scoring, MeanAndItsError) {
  const std::vector<double> v = {1, 2, 3, 6};
  EXPECT_DOUBLE_EQ(mean_of(v).mean, 3);
  EXPECT_DOUBLE_EQ(mean_of(v).error, std::sqrt(14.0 / 3 / 4));
  EXPECT_DOUBLE_EQ(mean_of(std::vector{2.5}).mean, 2.5);
  EXPECT_EQ(mean_of(std::vector{2.5}).error, 0);
}

TEST(Scoring, Quantiles) {
  const std::vector<double> v = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(quantile(v, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(v, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile(v, 1), 8);
  EXPECT_DOUBLE_EQ(quantile(v, 0.9), 4 + 0.7 * 4);
  EXPECT_DOUBLE_EQ(quantile(std::vector{5.0}, 0.99), 5);
}

}  // namespace
}  // namespace crumb::eval

#include "quant/linalg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "models/errors.h"
#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

using testing::HasSubstr;

// max |M D M^T - H| / max|H|.
double residual(const Factor& f) {
  double worst = 0;
  double largest = 0;
  for (int64_t i = 0; i < f.K; ++i)
    for (int64_t j = 0; j < f.K; ++j) {
      double sum = 0;
      for (int64_t k = std::max(i, j); k < f.K; ++k)
        sum += f.M[static_cast<std::size_t>(i * f.K + k)] * f.D[static_cast<std::size_t>(k)] *
               f.M[static_cast<std::size_t>(j * f.K + k)];
      const double value = f.H[static_cast<std::size_t>(i * f.K + j)];
      worst = std::max(worst, std::abs(sum - value));
      largest = std::max(largest, std::abs(value));
    }
  return worst / largest;
}

TEST(Linalg, TheFactorsMultiplyBackToTheDampedMatrix) {
  for (const int64_t K : {1, 5, 128, 129, 300})
    for (const auto order :
         {ColumnOrder::kAscending, ColumnOrder::kActOrder, ColumnOrder::kDescending}) {
      const auto H = random_hessian(K, 8, 3, 20);
      const Factor f = factor(H, K, order, "H");
      EXPECT_LT(residual(f), 1e-13) << K;
      EXPECT_EQ(f.damping, 0.01);
      double mean = 0;
      for (int64_t k = 0; k < K; ++k) mean += H[static_cast<std::size_t>(k * K + k)] / K;
      for (int64_t i = 0; i < K; ++i) {
        const int64_t a = f.order[static_cast<std::size_t>(i)];
        for (int64_t j = 0; j < K; ++j) {
          const int64_t b = f.order[static_cast<std::size_t>(j)];
          const double expected =
              H[static_cast<std::size_t>(a * K + b)] + (i == j ? 0.01 * mean : 0);
          ASSERT_NEAR(f.H[static_cast<std::size_t>(i * K + j)], expected, 1e-12 * mean);
          if (j < i) {
            ASSERT_EQ(f.M[static_cast<std::size_t>(i * K + j)], 0);
          }
        }
        ASSERT_EQ(f.M[static_cast<std::size_t>(i * K + i)], 1);
        if (order == ColumnOrder::kActOrder && i > 0) {
          ASSERT_LE(f.diagonal[static_cast<std::size_t>(a)],
                    f.diagonal[static_cast<std::size_t>(f.order[static_cast<std::size_t>(i - 1)])]);
        }
      }
    }
}

TEST(Linalg, FactorsDoNotDependOnTheNumberOfThreads) {
  const auto H = random_hessian(515, 8, 4);
  const Factor one = factor(H, 515, ColumnOrder::kActOrder, "H", 1);
  for (const int threads : {2, 3, 8}) {
    const Factor many = factor(H, 515, ColumnOrder::kActOrder, "H", threads);
    EXPECT_EQ(many.M, one.M);
    EXPECT_EQ(many.D, one.D);
  }
}

TEST(Linalg, DeadColumnsTouchNoOther) {
  const int64_t K = 40;
  auto H = random_hessian(K, 4, 5);
  for (int64_t k = 0; k < K; ++k)
    H[static_cast<std::size_t>(7 * K + k)] = H[static_cast<std::size_t>(k * K + 7)] = 0;
  const Factor f = factor(H, K, ColumnOrder::kAscending, "H");
  EXPECT_EQ(f.dead, 1);
  EXPECT_LT(residual(f), 1e-13);
  for (int64_t k = 0; k < K; ++k)
    if (k != 7) {
      EXPECT_EQ(f.M[static_cast<std::size_t>(7 * K + k)], 0);
      EXPECT_EQ(f.M[static_cast<std::size_t>(k * K + 7)], 0);
    }
  const Factor all = factor(std::vector<double>(9), 3, ColumnOrder::kAscending, "H");
  EXPECT_EQ(all.dead, 3);
  EXPECT_EQ(all.D, std::vector<double>(3, all.D[0]));
}

TEST(Linalg, TheLadderIsClimbedAndItsRungTold) {
  // Eigenvalues 1 + c and 1 - c: with c = 1.02 the first rung is not enough, with 1.5 the third.
  const auto pair = [](double c) { return std::vector<double>{1, c, c, 1}; };
  EXPECT_EQ(factor(pair(0.5), 2, ColumnOrder::kAscending, "H").damping, 0.01);
  EXPECT_EQ(factor(pair(1.02), 2, ColumnOrder::kAscending, "H").damping, 0.03);
  EXPECT_EQ(factor(pair(1.5), 2, ColumnOrder::kAscending, "H").damping, 1.0);
  EXPECT_EQ(factor(pair(0.5), 2, ColumnOrder::kAscending, "H", 1, 0.1).damping, 0.1);
}

TEST(Linalg, HopelessMatricesAreNamed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> all[] = {{1, 3, 3, 1}, {nan, 0, 0, 1}, {-1, 0, 0, 1}, {1, nan, nan, 1}};
  for (const auto& H : all) try {
      factor(H, 2, ColumnOrder::kAscending, "model.layers.0.mlp.down_proj");
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kNumeric);
      EXPECT_THAT(e.what(), HasSubstr("model.layers.0.mlp.down_proj"));
    }
}

TEST(Linalg, ProxyLossIsTheTraceAndTheSumOverRows) {
  const int64_t N = 70;
  const int64_t K = 33;
  const auto H = random_hessian(K, 4, 6);
  const auto w = random_weights(N * K, 1);
  const auto v = random_weights(N * K, 2);
  const double slow = slow_proxy(w, v, N, H, K);
  EXPECT_NEAR(proxy_loss(w, v, N, H, K), slow, 1e-12 * slow);
  EXPECT_EQ(row_losses(w, v, N, H, K, 1), row_losses(w, v, N, H, K, 2));
}

}  // namespace
}  // namespace crumb::quant

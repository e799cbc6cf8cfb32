#include "quant/low_rank.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/quant/weights.h"

namespace crumb::quant {
namespace {

constexpr int64_t N = 70, K = 130, kRank = 5;

LowRankValues some_values() {
  LowRankValues values = low_rank_start(N, K, kRank, 3);
  values.left = random_weights(N * kRank, 1, 0.3f);
  values.rows = random_weights(N, 2, 0.3f);
  values.columns = random_weights(K, 4, 0.3f);
  return values;
}

TEST(LowRank, IsTheProductAndTheVectors) {
  const LowRankValues values = some_values();
  std::vector<float> S(N * K), other(N * K);
  low_rank_product(values, S, 1);
  low_rank_product(values, other, 3);
  EXPECT_EQ(S, other);
  for (int64_t n = 0; n < N; n += 13)
    for (int64_t k = 0; k < K; k += 17) {
      double sum = static_cast<double>(values.rows[static_cast<std::size_t>(n)]) +
                   static_cast<double>(values.columns[static_cast<std::size_t>(k)]);
      for (int64_t r = 0; r < kRank; ++r)
        sum += static_cast<double>(values.left[static_cast<std::size_t>(n * kRank + r)]) *
               static_cast<double>(values.right[static_cast<std::size_t>(r * K + k)]);
      EXPECT_NEAR(S[static_cast<std::size_t>(n * K + k)], sum, 1e-5);
    }
}

// Of a loss that is linear in S finite differences in one value are exact but for rounding; that of
// f(S) = sum c S + S^2 / 2 has second differences that central ones leave out.
TEST(LowRank, GradientsAreThoseOfFiniteDifferences) {
  LowRankValues values = some_values();
  const auto c = random_weights(N * K, 7, 1.0f);
  const auto product = [&] {
    std::vector<float> S(N * K);
    low_rank_product(values, S, 1);
    return S;
  };
  const auto loss = [&] {
    const auto S = product();
    double sum = 0;
    for (std::size_t i = 0; i < S.size(); ++i) {
      const auto s = static_cast<double>(S[i]);
      sum += static_cast<double>(c[i]) * s + s * s / 2;
    }
    return sum;
  };
  auto A = product();
  for (std::size_t i = 0; i < A.size(); ++i) A[i] += c[i];
  const LowRankValues d = low_rank_gradients(values, A, 1);
  const LowRankValues again = low_rank_gradients(values, A, 3);
  for (const auto part : {&LowRankValues::left, &LowRankValues::right, &LowRankValues::rows,
                          &LowRankValues::columns}) {
    EXPECT_EQ(d.*part, again.*part);
    auto& v = values.*part;
    for (std::size_t i = 0; i < v.size(); i += 29) {
      const float kept = v[i];
      constexpr float kStep = 0.03f;
      v[i] = kept + kStep;
      const double above = loss(), up = v[i];
      v[i] = kept - kStep;
      const double slope = (above - loss()) / (up - static_cast<double>(v[i]));
      v[i] = kept;
      EXPECT_NEAR((d.*part)[i], slope, 2e-3 * (1 + std::abs(slope)));
    }
  }
}

TEST(LowRank, StartsAtZeroWithARandomSide) {
  const LowRankValues values = low_rank_start(N, K, 16, 1);
  std::vector<float> S(N * K, 1.0f);
  low_rank_product(values, S, 2);
  EXPECT_EQ(S, std::vector<float>(N * K));
  double square = 0;
  for (const float u : values.right) square += static_cast<double>(u) * static_cast<double>(u);
  EXPECT_NEAR(square / K, 1.0, 0.15);  // 16 values of variance 1 / 16
}

}  // namespace
}  // namespace crumb::quant

// Muon's direction on matrices whose singular vectors are known, and its step in double.
#include "quant/train/muon.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "quant/train/adam.h"
#include "quant/train/ops.h"
#include "tests/quant/weights.h"

namespace crumb::quant::train {
namespace {

using Floats = std::vector<float>;

// Row i of a normalised Hadamard matrix of 64: an orthogonal matrix, in two orders of its rows.
float hadamard(int64_t i, int64_t k) {
  const auto bits = static_cast<uint64_t>(i) & static_cast<uint64_t>(k);
  return std::popcount(bits) % 2 == 0 ? 0.125f : -0.125f;
}
float left(int64_t n, int64_t i) { return hadamard(i, n); }
float right(int64_t i, int64_t k) { return hadamard((i * 27 + 11) % 64, k); }

// sum_i s_i left_i right_i^T, [64, 64].
Floats matrix_of(const Floats& s) {
  Floats x(64 * 64);
  for (int64_t n = 0; n < 64; ++n)
    for (int64_t k = 0; k < 64; ++k)
      for (int64_t i = 0; i < 64; ++i)
        x[static_cast<std::size_t>(n * 64 + k)] +=
            s[static_cast<std::size_t>(i)] * left(n, i) * right(i, k);
  return x;
}

TEST(Muon, BringsSingularValuesIntoItsBandAndKeepsTheirVectors) {
  single_threaded_blas();
  Floats s;
  for (int64_t i = 0; i < 64; ++i) s.push_back(std::pow(10.0f, -2.3f * static_cast<float>(i) / 63));
  Floats x = matrix_of(s);
  orthogonalise(x, 64, 64);
  for (int64_t i = 0; i < 64; ++i)
    for (int64_t j = 0; j < 64; ++j) {
      double value = 0;  // left_i^T O right_j
      for (int64_t n = 0; n < 64; ++n)
        for (int64_t k = 0; k < 64; ++k)
          value += static_cast<double>(left(n, i)) * x[static_cast<std::size_t>(n * 64 + k)] *
                   right(j, k);
      if (i != j) {
        ASSERT_NEAR(value, 0, 2e-3) << i << ' ' << j;
      } else {
        ASSERT_GT(value, kMuonBand[0]) << "singular value " << s[static_cast<std::size_t>(i)];
        ASSERT_LT(value, kMuonBand[1]) << "singular value " << s[static_cast<std::size_t>(i)];
      }
    }
}

// X X^T / its mean diagonal is nearly the identity, whichever side is longer.
TEST(Muon, OfTallMatricesIsTheTransposeOfWideOnes) {
  single_threaded_blas();
  constexpr int64_t N = 24, K = 80;
  Floats wide = random_weights(N * K, 1, 3.0f), tall(wide.size());
  const auto turn = [&](const Floats& from, Floats& to, int64_t rows, int64_t columns) {
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t k = 0; k < columns; ++k)
        to[static_cast<std::size_t>(k * rows + n)] =
            from[static_cast<std::size_t>(n * columns + k)];
  };
  turn(wide, tall, N, K);
  orthogonalise(wide, N, K);
  orthogonalise(tall, K, N);
  Floats back(wide.size());
  turn(tall, back, K, N);
  double square = 0;
  for (std::size_t i = 0; i < wide.size(); ++i) {
    ASSERT_NEAR(back[i], wide[i], 1e-5);
    square += static_cast<double>(wide[i]) * wide[i];
  }
  EXPECT_NEAR(std::sqrt(square / N), 1, 0.15);
  Floats zeros(12);
  orthogonalise(zeros, 3, 4);
  EXPECT_EQ(zeros, Floats(12));
}

TEST(Muon, TakesNesterovsStepOfAdamsSize) {
  single_threaded_blas();
  constexpr int64_t N = 32, K = 96;
  Floats w = random_weights(N * K, 1, 1.0f), mean(w.size()), momentum(w.size());
  const Floats start = w;
  Floats expected = w;
  const MuonStep step{0.01f, 0.9f};
  for (uint64_t t = 1; t <= 3; ++t) {
    const Floats g = random_weights(N * K, 10 + t, 1.0f);
    muon(step, g, 0.5f, N, K, w, mean);
    Floats u(g.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      momentum[i] = 0.9f * momentum[i] + 0.5f * g[i];
      u[i] = 0.5f * g[i] + 0.9f * momentum[i];
    }
    orthogonalise(u, N, K);
    for (std::size_t i = 0; i < u.size(); ++i)
      expected[i] -= 0.01f * 0.2f * std::sqrt(96.0f) * u[i];
    if (t > 1) continue;
    double square = 0;
    for (std::size_t i = 0; i < w.size(); ++i)
      square += std::pow(static_cast<double>(w[i]) - static_cast<double>(start[i]), 2);
    EXPECT_NEAR(std::sqrt(square / static_cast<double>(N * K)), 0.2 * 0.01, 0.2 * 0.01 * 0.15);
  }
  for (std::size_t i = 0; i < w.size(); ++i) {
    ASSERT_NEAR(mean[i], momentum[i], 1e-6);
    ASSERT_NEAR(w[i], expected[i], 1e-6);
  }
}

}  // namespace
}  // namespace crumb::quant::train

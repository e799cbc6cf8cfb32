// QuIP's parts against dense algebra, and the whole against rounding to nearest.
#include "quant/quip.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/errors.h"
#include "quant/linalg.h"
#include "quant/scale_search.h"
#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

std::vector<double> dense(const Kronecker& v, bool transposed) {
  const auto n = static_cast<std::size_t>(v.n());
  std::vector<double> M(n * n), x(n), scratch(n);
  for (std::size_t j = 0; j < n; ++j) {
    std::fill(x.begin(), x.end(), 0.0);
    x[j] = 1;
    apply(v, transposed, x, scratch);
    for (std::size_t i = 0; i < n; ++i) M[i * n + j] = x[i];
  }
  return M;
}

TEST(Quip, FactorsAreEveryOtherPrime) {
  struct Expected {
    int64_t n, p, q;
  };
  for (const auto& e : {Expected{576, 24, 24}, Expected{1536, 32, 48}, Expected{192, 24, 8},
                        Expected{896, 16, 56}, Expected{13, 13, 1}, Expected{1, 1, 1}}) {
    const auto v = random_kronecker(e.n, 3);
    EXPECT_EQ(v.p, e.p) << e.n;
    EXPECT_EQ(v.q, e.q) << e.n;
  }
}

TEST(Quip, KroneckerIsWhatItSaysAndOrthogonal) {
  for (const int64_t n : {1, 13, 12, 96}) {
    const auto v = random_kronecker(n, 11);
    const auto V = dense(v, false);
    const auto Vt = dense(v, true);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const auto a = static_cast<std::size_t>(i * n + j);
        // y_i = x''[out_i], x'' = (A kron B) x', x'_j = x[in_j].
        const int64_t row = v.out[static_cast<std::size_t>(i)];
        const int64_t col = std::find(v.in.begin(), v.in.end(), j) - v.in.begin();
        const double expected = v.A[static_cast<std::size_t>(row / v.q * v.p + col / v.q)] *
                                v.B[static_cast<std::size_t>(row % v.q * v.q + col % v.q)];
        EXPECT_NEAR(V[a], expected, 1e-12);
        EXPECT_NEAR(V[a], Vt[static_cast<std::size_t>(j * n + i)], 1e-12);
        double product = 0;
        for (int64_t k = 0; k < n; ++k)
          product +=
              V[static_cast<std::size_t>(i * n + k)] * V[static_cast<std::size_t>(j * n + k)];
        EXPECT_NEAR(product, i == j ? 1 : 0, 1e-12);
      }
  }
  EXPECT_NE(random_kronecker(96, 1).A, random_kronecker(96, 2).A);
}

// With 8 bits next to nothing is lost but what lies outside 2.4 rms, so all that is done to the
// matrix is undone: transforms on both sides and the rescale.
TEST(Quip, EverythingIsUndone) {
  const int64_t N = 48, K = 96;
  auto w = random_weights(N * K, 5);
  const auto H = random_hessian(K, 12, 6, 5.0);
  for (const bool rescale : {true, false}) {
    const auto result = quip(w, N, K, H, {8, rescale, 0, 1}, "w");
    // Clipping is 1.6 % of the values of a Gaussian; the weighted error stays small.
    const double zero = proxy_loss(w, std::vector<float>(w.size()), N, H, K);
    EXPECT_LT(proxy_loss(w, result.w, N, H, K), 0.01 * zero) << rescale;
    EXPECT_EQ(std::ssize(result.w), N * K);
    EXPECT_DOUBLE_EQ(result.bpw, 8 + ((rescale ? 16.0 * K : 0.0) + 16) / (N * K));
  }
}

TEST(Quip, BeatsNearestAndGreedyPassesDoNotHurt) {
  const int64_t N = 96, K = 96;
  const auto w = random_weights(N * K, 8);
  const auto H = random_hessian(K, 8, 9, 6.0);
  const auto loss = [&](const QuipOptions& options) {
    return proxy_loss(w, quip(w, N, K, H, options, "w").w, N, H, K);
  };
  const auto nearest = [&](int bits) {
    return proxy_loss(
        w, dequantize(round_nearest(w, N, K, {}, {bits, 0, kernels::Grid::kSeq, ScaleRule::kMse})),
        N, H, K);
  };
  for (const int bits : {2, 3, 4}) {
    const double full = loss({bits, true, 10, 1});
    EXPECT_LT(full, 0.4 * nearest(bits)) << bits;
    EXPECT_LE(full, loss({bits, true, 0, 1}) * 1.05) << bits;
  }
}

TEST(Quip, SameForEveryNumberOfThreadsAndOfItsSeed) {
  const int64_t N = 96, K = 60;
  const auto w = random_weights(N * K, 8);
  const auto H = random_hessian(K, 8, 9);
  const auto one = quip(w, N, K, H, {2, true, 3, 5}, "w", 1).w;
  EXPECT_EQ(one, quip(w, N, K, H, {2, true, 3, 5}, "w", 3).w);
  EXPECT_NE(one, quip(w, N, K, H, {2, true, 3, 6}, "w", 1).w);
}

TEST(Quip, NamesAMatrixWhoseMomentIsNone) {
  auto H = random_hessian(12, 4, 9);
  H[0] = std::nan("");
  try {
    quip(random_weights(12 * 12, 1), 12, 12, H, {}, "layer.q");
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNumeric);
    EXPECT_NE(std::string(error.what()).find("layer.q"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace crumb::quant

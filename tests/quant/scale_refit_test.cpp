#include "quant/scale_refit.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

constexpr int64_t N = 67, K = 192;

struct Start {
  std::vector<float> w = random_weights(N * K, 8);
  std::vector<double> H = random_hessian(K, 9, 10, 4);
  Factor factor_of = factor(H, K, ColumnOrder::kActOrder, "test");
  Rounded of(int64_t group, kernels::Grid grid) const {
    return ldlq(w, N, K, factor_of, {3, group, grid});
  }
  double loss(const Rounded& rounded, int64_t row) const {
    const auto values = dequantize(rounded);
    const auto at = [&](const std::vector<float>& all) {
      return std::span(all).subspan(static_cast<std::size_t>(row * K), K);
    };
    return slow_proxy(at(w), at(values), 1, H, K);
  }
};

TEST(ScaleRefit, NeverRaisesARowsLossAndDoesNotDependOnThreads) {
  const Start start;
  for (const int64_t group : {int64_t{64}, int64_t{0}})
    for (const auto grid : {kernels::Grid::kSeq, kernels::Grid::kAsym}) {
      const Rounded before = start.of(group, grid);
      Rounded after = before, threaded = before;
      refit_scales(start.w, start.H, &after, 1);
      refit_scales(start.w, start.H, &threaded, 3);
      EXPECT_EQ(after.scales, threaded.scales);
      EXPECT_EQ(after.codes, before.codes);
      EXPECT_NE(after.scales, before.scales);
      for (int64_t n = 0; n < N; n += 6)
        EXPECT_LE(start.loss(after, n), start.loss(before, n) * (1 + 1e-9));
    }
}

// One scale a row: no neighbour among binary16 numbers is better.
TEST(ScaleRefit, FindsTheBestScaleOfARow) {
  const Start start;
  Rounded after = start.of(0, kernels::Grid::kSeq);
  refit_scales(start.w, start.H, &after, 2);
  for (int64_t n = 0; n < N; n += 11)
    for (const int step : {-1, 1}) {
      Rounded moved = after;
      moved.scales[static_cast<std::size_t>(n)] =
          static_cast<uint16_t>(moved.scales[static_cast<std::size_t>(n)] + step);
      EXPECT_LE(start.loss(after, n), start.loss(moved, n) * (1 + 1e-9));
    }
}

TEST(ScaleRefit, TrialsAndRefitsOnlyGain) {
  const Start start;
  const Rounded before = start.of(64, kernels::Grid::kSeq);
  const auto total = [&](const RefitOptions& options, int threads) {
    const Rounded found =
        improve_scales(start.w, start.H, start.factor_of, before, options, threads);
    return proxy_loss(start.w, dequantize(found), N, start.H, K, 1);
  };
  const double none = total({}, 1), refits = total({0, 2, 0}, 1), both = total({2, 2, 1}, 1);
  EXPECT_LT(refits, none);
  EXPECT_LT(both, refits);
  EXPECT_EQ(total({2, 2, 1}, 3), both);
}

}  // namespace
}  // namespace crumb::quant

#include "quant/scale_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/pack.h"
#include "quant/linalg.h"
#include "quant/rtn.h"
#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

using kernels::Grid;

double weighted_loss(std::span<const float> w, std::span<const float> h, const GroupFit& fit,
                     int bits) {
  std::vector<uint8_t> codes(w.size());
  round_group(w, fit, bits, codes);
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double value = static_cast<double>(fit.scale) * (codes[i] - 0.5 * fit.zero2);
    sum += static_cast<double>(h[i]) * (value - w[i]) * (value - w[i]);
  }
  return sum;
}

// A few columns with a hundred times the input power, as after an RMSNorm gain.
std::vector<float> uneven_weights(std::size_t n) {
  std::vector<float> h(n);
  for (std::size_t i = 0; i < n; ++i) h[i] = i % 29 == 3 ? 25.0f : 0.25f;
  return h;
}

// With two heavy columns in a group of 64 the error is jagged in the scale, hence 15 %.
TEST(ScaleSearch, IsNearTheBestOfAnExhaustiveSearch) {
  for (const Grid grid : {Grid::kSeq, Grid::kLsq, Grid::kAsym})
    for (const int bits : {2, 3, 4})
      for (const std::size_t n : {std::size_t{64}, std::size_t{576}}) {
        const auto w = random_weights(static_cast<int64_t>(n), 7);
        const auto h = uneven_weights(n);
        const GroupFit widest = fit_group(w, bits, grid, ScaleSearch::kAbsMax);
        double best = weighted_loss(w, h, widest, bits);
        const int moves = grid == Grid::kAsym ? 3 : 0;
        for (double ratio = 0.1; ratio < 1.2; ratio += 0.001)
          for (int move = -moves; move <= moves; ++move) {
            GroupFit fit = {nearest_scale(ratio * widest.scale), widest.zero2 + 2 * move};
            if (moves > 0 && (fit.zero2 < 0 || fit.zero2 > 2 * ((1 << bits) - 1))) continue;
            best = std::min(best, weighted_loss(w, h, fit, bits));
          }
        const double found = weighted_loss(w, h, fit_group_weighted(w, h, bits, grid), bits);
        EXPECT_LE(found, 1.15 * best)
            << bits << " bits, grid " << static_cast<int>(grid) << " n " << n;
        EXPECT_LE(found, weighted_loss(w, h, widest, bits));
      }
}

TEST(ScaleSearch, OneColumnIsMetAndDeadGroupsCountAlike) {
  const auto w = random_weights(64, 3);
  std::vector<float> h(64);
  const GroupFit dead = fit_group_weighted(w, h, 4, Grid::kSeq);
  EXPECT_EQ(dead.scale, fit_group(w, 4, Grid::kSeq, ScaleSearch::kMse).scale);
  h[5] = 1;  // the only column that counts: some ratio has a level very near to it
  const GroupFit one = fit_group_weighted(w, h, 4, Grid::kSeq);
  EXPECT_LT(weighted_loss(w, h, one, 4), 1e-5 * w[5] * w[5]);
  const std::vector<float> zeros(64);
  EXPECT_EQ(fit_group_weighted(zeros, h, 4, Grid::kAsym).scale, 0);
}

TEST(ScaleSearch, WeightedScalesLowerTheOutputErrorOfOthers) {
  const int64_t N = 64;
  const int64_t K = 576;
  const auto H = random_hessian(K, 32, 1, 8);
  std::vector<float> h(static_cast<std::size_t>(K));
  for (int64_t k = 0; k < K; ++k)
    h[static_cast<std::size_t>(k)] = static_cast<float>(H[static_cast<std::size_t>(k * K + k)]);
  auto w = random_weights(N * K, 2);
  // What is multiplied by much is itself large: the weights plain MSE clips.
  for (int64_t i = 0; i < N * K; ++i)
    if (i % K % 37 == 5) w[static_cast<std::size_t>(i)] *= 4;
  const auto loss = [&](ScaleRule rule) {
    const auto rounded = round_nearest(w, N, K, h, {4, 0, Grid::kSeq, rule});
    return proxy_loss(w, dequantize(rounded), N, H, K);
  };
  const double weighted = loss(ScaleRule::kWeighted);
  const double mse = loss(ScaleRule::kMse);
  const double absmax = loss(ScaleRule::kAbsMax);
  std::printf("proxy of SEQ4 rows: weighted/mse %.3f, weighted/absmax %.3f\n", weighted / mse,
              weighted / absmax);
  EXPECT_LT(weighted, 0.5 * mse);
  EXPECT_LT(weighted, 0.95 * absmax);
}

TEST(ScaleSearch, NearestIsRtnAndPacksToTheSameValues) {
  const int64_t N = 33;
  const int64_t K = 100;
  const auto w = random_weights(N * K, 4);
  for (const Grid grid : {Grid::kSeq, Grid::kLsq, Grid::kAsym})
    for (const int64_t group : {0, 32, 64}) {
      const auto rounded = round_nearest(w, N, K, {}, {3, group, grid, ScaleRule::kMse}, 2);
      const auto packed = pack(rounded, {});
      const auto expected = rtn(w, N, K, {3, group, grid, ScaleSearch::kMse, {}}, "w");
      EXPECT_EQ(packed.codes, expected.codes);
      EXPECT_EQ(packed.scales, expected.scales);
      EXPECT_EQ(packed.zeros, expected.zeros);
      const Rounded back = unpack(packed);
      EXPECT_EQ(back.codes, rounded.codes);
      EXPECT_EQ(back.scales, rounded.scales);
      EXPECT_EQ(back.zeros, rounded.zeros);
      EXPECT_EQ(back.group, rounded.group);
      const auto values = dequantize(rounded);
      std::vector<float> row(static_cast<std::size_t>(K));
      for (int64_t n = 0; n < N; ++n) {
        kernels::dequantize_row(view(packed), n, row);
        for (int64_t k = 0; k < K; ++k)
          ASSERT_EQ(values[static_cast<std::size_t>(n * K + k)], row[static_cast<std::size_t>(k)]);
      }
    }
}

}  // namespace
}  // namespace crumb::quant

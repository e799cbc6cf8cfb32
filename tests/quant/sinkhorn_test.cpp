#include "quant/sinkhorn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quant/linalg.h"
#include "quant/scale_search.h"
#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

using kernels::Grid;

constexpr int64_t kN = 96;
constexpr int64_t kK = 256;

// Some columns and rows six times as large as the others. `spikes` leaves in the single large
// values of random_weights, which no scale of rows and columns can even out.
std::vector<float> uneven(bool spikes) {
  auto w = random_weights(kN * kK, 3, 0.02f);
  for (int64_t i = 0; i < kN * kK; ++i) {
    float& x = w[static_cast<std::size_t>(i)];
    if (!spikes && i % 97 == 96) x /= 8;
    if (i % kK % 23 == 4) x *= 6;
    if (i / kK % 17 == 2) x *= 6;
  }
  return w;
}

TEST(Sinkhorn, LowersTheImbalanceAndDoesNotDependOnThreads) {
  const auto w = uneven(false);
  for (const int64_t tile : {0, 64, 96}) {
    const DualScales one = sinkhorn(w, kN, kK, {16, tile}, 1);
    EXPECT_LT(one.imbalance_after, 0.5 * one.imbalance_before) << tile;
    EXPECT_EQ(std::ssize(one.rows), kN * (tile == 0 ? 1 : (kK + tile - 1) / tile));
    const DualScales many = sinkhorn(w, kN, kK, {16, tile}, 3);
    EXPECT_EQ(many.rows, one.rows);
    EXPECT_EQ(many.columns, one.columns);
  }
  for (const float t : sinkhorn(std::vector<float>(128), 2, 64, {}).columns)
    EXPECT_NEAR(t, 1, 0.02);  // nothing to even out
}

// The iteration of the header, one sum after the other.
std::vector<float> plain_columns(const std::vector<float>& w, int64_t N, int64_t K,
                                 int iterations) {
  const auto rows = static_cast<std::size_t>(N), columns = static_cast<std::size_t>(K);
  std::vector<double> u(rows), v(columns), best(columns), row_std(rows), column_std(columns);
  const auto deviation = [](double sum, double squares, int64_t n) {
    const auto count = static_cast<double>(n);
    const double variance = std::max((squares - sum * sum / count) / (count - 1), 0.0);
    return std::clamp(std::sqrt(variance), 1e-3, 1e3);
  };
  const auto deviations = [&] {  // the imbalance
    std::vector<double> sum(columns), squares(columns);
    for (std::size_t n = 0; n < rows; ++n) {
      double row_sum = 0, row_squares = 0;
      for (std::size_t k = 0; k < columns; ++k) {
        const double x =
            static_cast<double>(w[n * columns + k]) * std::exp(-v[k]) * std::exp(-u[n]);
        row_sum += x;
        row_squares += x * x;
        sum[k] += x;
        squares[k] += x * x;
      }
      row_std[n] = deviation(row_sum, row_squares, K);
    }
    for (std::size_t k = 0; k < columns; ++k) column_std[k] = deviation(sum[k], squares[k], N);
    return std::max(*std::max_element(row_std.begin(), row_std.end()),
                    *std::max_element(column_std.begin(), column_std.end())) /
           std::min(*std::min_element(row_std.begin(), row_std.end()),
                    *std::min_element(column_std.begin(), column_std.end()));
  };
  double least = deviations();
  const double tau = std::min(*std::min_element(row_std.begin(), row_std.end()),
                              *std::min_element(column_std.begin(), column_std.end())) +
                     1e-6;
  const auto step = [&](const std::vector<double>& spread, std::vector<double>& logs) {
    for (std::size_t i = 0; i < logs.size(); ++i)
      logs[i] = std::clamp(logs[i] + std::log(std::clamp(spread[i] / tau, 0.7, 2.0)), -0.3, 10.0);
  };
  for (int i = 0; i < iterations; ++i) {
    step(column_std, v);
    step(row_std, u);
    const double now = deviations();
    if (now > least) break;
    least = now;
    best = v;
  }
  std::vector<float> t;
  for (const double x : best) t.push_back(static_cast<float>(std::exp(x)));
  return t;
}

TEST(Sinkhorn, SameBitsAsTheObviousLoop) {
  for (const int64_t N : {2, 3, 5, 40, 97})
    for (const int64_t K : {2, 63, 80})
      for (const int threads : {1, 2, 5}) {
        const auto w = random_weights(N * K, static_cast<uint64_t>(N + K), 0.02f);
        EXPECT_EQ(sinkhorn(w, N, K, {16, 0}, threads).columns, plain_columns(w, N, K, 16))
            << N << " x " << K << ", " << threads << " threads";
      }
}

TEST(Sinkhorn, NeverEndsWorseThanItBegan) {
  for (uint64_t seed = 0; seed < 8; ++seed)
    for (const int iterations : {0, 1, 4, 32}) {
      const auto s = sinkhorn(random_weights(40 * 80, seed), 40, 80, {iterations, 0});
      EXPECT_LE(s.imbalance_after, s.imbalance_before);
    }
}

// Scaling the columns of a matrix scales t: what is left to quantize is the same.
TEST(Sinkhorn, FindsTheColumnsScales) {
  const auto w = random_weights(kN * kK, 5);
  auto scaled = w;
  std::vector<float> by(static_cast<std::size_t>(kK));
  for (std::size_t k = 0; k < by.size(); ++k) by[k] = k % 5 == 0 ? 4.0f : 1.0f;
  for (std::size_t i = 0; i < scaled.size(); ++i) scaled[i] *= by[i % by.size()];
  const auto t = sinkhorn(scaled, kN, kK, {32, 0}).columns;
  double large = 0;
  double small = 0;
  for (std::size_t k = 0; k < t.size(); ++k)
    (k % 5 == 0 ? large : small) += std::log(static_cast<double>(t[k])) / (k % 5 == 0 ? 52 : 204);
  EXPECT_NEAR(large - small, std::log(4.0), 0.1);
}

TEST(Sinkhorn, LowersTheOutputErrorOfWeightsWithOutlierColumns) {
  const auto H = random_hessian(kK, 24, 7);
  for (const bool spikes : {false, true})
    for (const int bits : {3, 4}) {
      const auto w = uneven(spikes);
      const auto loss = [&](std::vector<float> m, std::span<const float> t) {
        divide_columns(m, t);
        auto values =
            dequantize(round_nearest(m, kN, kK, {}, {bits, 64, Grid::kAsym, ScaleRule::kAbsMax}));
        for (std::size_t i = 0; i < values.size(); ++i) values[i] *= t[i % t.size()];
        return proxy_loss(w, values, kN, H, kK);
      };
      const double rtn = loss(w, std::vector<float>(static_cast<std::size_t>(kK), 1.0f));
      const double tiled = loss(w, sinkhorn(w, kN, kK, {}).columns);
      const double whole = loss(w, sinkhorn(w, kN, kK, {16, 0}).columns);
      std::printf("asym%d g64%s, proxy / RTN: SINQ %.3f, single vector %.3f\n", bits,
                  spikes ? " with spikes" : "", tiled / rtn, whole / rtn);
      if (spikes) continue;  // told, not promised: here SINQ may lose to RTN
      EXPECT_LT(tiled, 0.7 * rtn);
      EXPECT_LT(whole, 0.7 * rtn);
    }
}

// Why spikes turn SINQ's gain round: it is not that Sinkhorn misses the columns' sizes (the true
// ones lose as much), but that a step set by a spike is larger than the small weights. Without
// scales the small columns are then rounded to nothing, which costs next to nothing, and the large
// ones are resolved; with scales all are as coarse as each other. Where large columns have quiet
// inputs, as in a transformer, the gain is there all the same.
TEST(Sinkhorn, SpikesHurtOnlyWhereLargeColumnsAreNotQuiet) {
  auto w = random_weights(kN * kK, 3, 0.02f);
  std::vector<float> truth(static_cast<std::size_t>(kK));
  for (std::size_t k = 0; k < truth.size(); ++k) truth[k] = k % 5 == 0 ? 6.0f : 1.0f;
  for (std::size_t i = 0; i < w.size(); ++i) w[i] *= truth[i % truth.size()];
  const auto even = random_hessian(kK, 24, 7);
  auto quiet = even;
  for (std::size_t i = 0; i < quiet.size(); ++i)
    quiet[i] /= static_cast<double>(truth[i / truth.size()]) * truth[i % truth.size()];
  const auto ratio = [&](std::span<const float> t, std::span<const double> H) {
    const auto loss = [&](std::vector<float> m, std::span<const float> by) {
      divide_columns(m, by);
      auto values =
          dequantize(round_nearest(m, kN, kK, {}, {3, 64, Grid::kAsym, ScaleRule::kAbsMax}));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] *= by[i % by.size()];
      return proxy_loss(w, values, kN, H, kK);
    };
    return loss(w, t) / loss(w, std::vector<float>(truth.size(), 1.0f));
  };
  const auto found = sinkhorn(w, kN, kK, {}).columns;
  EXPECT_GT(ratio(truth, even), 1.05);
  EXPECT_GT(ratio(found, even), 0.95);  // no gain, but not Sinkhorn's fault
  EXPECT_LE(ratio(found, even), ratio(truth, even));
  EXPECT_LT(ratio(truth, quiet), 0.5);
  EXPECT_LT(ratio(found, quiet), 0.5);
}

std::vector<double> product(std::span<const float> w, std::span<const double> x) {
  std::vector<double> y(w.size() / x.size());
  for (std::size_t i = 0; i < w.size(); ++i)
    y[i / x.size()] += static_cast<double>(w[i]) * x[i % x.size()];
  return y;
}

TEST(Sinkhorn, FoldingLeavesTheFunctionAsItWas) {
  const int64_t K = 64;
  auto up = random_weights(K * K, 1);
  auto down = random_weights(32 * K, 2);
  auto gain = random_weights(K, 4);
  std::vector<double> x(static_cast<std::size_t>(K));
  for (std::size_t k = 0; k < x.size(); ++k) x[k] = std::sin(static_cast<double>(k));
  const auto forward = [&] {  // norm gain, up, down
    auto in = x;
    for (std::size_t k = 0; k < in.size(); ++k) in[k] *= static_cast<double>(gain[k]);
    return product(down, product(up, in));
  };
  const auto before = forward();
  const std::span<const float> downs[] = {down};
  const auto t = shared_columns(downs, K, {});
  divide_columns(down, t);
  multiply_rows(up, t, K);
  const std::span<const float> ups[] = {up, up};
  const auto s = shared_columns(ups, K, {});
  divide_columns(up, s);
  multiply(gain, s);
  const auto after = forward();
  for (std::size_t n = 0; n < after.size(); ++n) EXPECT_NEAR(after[n], before[n], 1e-5);
}

TEST(Sinkhorn, HeadsThatReadOneHeadShareItsScale) {
  std::vector<float> t = {1, 2, 4, 8, 3, 3, 27, 3};  // H 4, Hk 2, Dh 2
  const auto v = share_over_heads(t, 4, 2);
  const std::vector<float> expected = {2, 4, 9, 3};
  for (std::size_t i = 0; i < v.size(); ++i) EXPECT_NEAR(v[i], expected[i], 1e-5);
  for (std::size_t i = 0; i < t.size(); ++i) EXPECT_EQ(t[i], v[i / 4 * 2 + i % 2]);
}

}  // namespace
}  // namespace crumb::quant

// Fake quantization against quant/grid.h and against finite differences of what it stands for.
#include "quant/train/fake_quant.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quant/scale_search.h"
#include "tests/quant/finite_difference.h"

namespace crumb::quant::train {
namespace {

using kernels::Grid;
using Floats = std::vector<float>;

constexpr int64_t kRows = 6, kColumns = 160;

struct Case {
  Grid grid;
  int bits;
  int64_t group;
};
constexpr Case kCases[] = {{Grid::kSeq, 2, 0},  {Grid::kSeq, 4, 64},  {Grid::kSeq, 3, 0},
                           {Grid::kLsq, 3, 0},  {Grid::kLsq, 4, 32},  {Grid::kAsym, 2, 128},
                           {Grid::kAsym, 4, 0}, {Grid::kAsym, 8, 32}, {Grid::kLsq, 2, 64}};

std::string name_of(const Case& c) {
  return "grid " + std::to_string(static_cast<int>(c.grid)) + ", bits " + std::to_string(c.bits) +
         ", group " + std::to_string(c.group);
}

// Scales by least squares, so that some weights are clipped.
FakeQuant make(const Case& c, const Floats& w) {
  return fake_quant_from(
      w, round_nearest(w, kRows, kColumns, {}, {c.bits, c.group, c.grid, ScaleRule::kMse}, 1));
}

// What the straight-through gradients are those of: inside the grid the distance to the level, in
// steps, is a constant, outside the code is.
class Surrogate {
 public:
  explicit Surrogate(const FakeQuant& q) : q_(q), start_(q) {}
  // sum G w^ at the masters and log scales that q has now.
  double operator()(const Floats& G) const {
    const Rounded& r = start_.rounded;
    double sum = 0;
    for (int64_t n = 0; n < r.N; ++n)
      for (int64_t k = 0; k < r.K; ++k) {
        const auto i = static_cast<std::size_t>(n * r.K + k);
        const auto g = static_cast<std::size_t>(n * groups_of(r) + k / r.group);
        const GroupFit fit = fit_of(r, n, k / r.group);
        const double s0 = fit.scale, code = r.codes[i], zero = 0.5 * fit.zero2;
        const double s = s0 * std::exp(static_cast<double>(q_.log_scale[g]) - start_.log_scale[g]);
        const double before = start_.master[i] / s0 + zero;  // in codes
        const bool inside = before > -0.5 && before < (1 << r.bits) - 0.5;
        const double value = inside ? q_.master[i] + s * (code - before) : s * (code - zero);
        sum += G[i] * value;
      }
    return sum;
  }

 private:
  const FakeQuant& q_;
  const FakeQuant start_;
};

TEST(FakeQuant, ForwardIsTheGridsNearestAndWhatIsExported) {
  for (const Case& c : kCases) {
    const auto w = random_weights(kRows * kColumns, 1);
    FakeQuant q = make(c, w);
    // Masters and scales anywhere, not where a search has put them.
    q.master = random_weights(kRows * kColumns, 2);
    for (std::size_t i = 0; i < q.log_scale.size(); ++i)
      q.log_scale[i] += 0.3f * static_cast<float>(std::sin(static_cast<double>(i)));
    Floats w_hat(w.size()), again(w.size());
    fake_quantize(&q, w_hat, 1);
    EXPECT_EQ(w_hat, dequantize(q.rounded)) << name_of(c);
    Rounded expected = q.rounded;
    std::fill(expected.codes.begin(), expected.codes.end(), uint8_t{0});
    for (int64_t n = 0; n < kRows; ++n)
      round_row(std::span(q.master).subspan(static_cast<std::size_t>(n * kColumns), kColumns), n,
                &expected);
    EXPECT_EQ(q.rounded.codes, expected.codes) << name_of(c);
    FakeQuant other = q;
    fake_quantize(&other, again, 3);
    EXPECT_EQ(again, w_hat) << name_of(c);
  }
}

TEST(FakeQuant, StartsFromGivenCodes) {
  for (const Case& c : kCases) {
    const auto w = random_weights(kRows * kColumns, 3);
    Rounded start = make(c, w).rounded;
    for (std::size_t i = 0; i < start.codes.size(); ++i)  // as far from nearest as it gets
      start.codes[i] = static_cast<uint8_t>((i * 7919) % (1u << c.bits));
    FakeQuant q = fake_quant_from(w, start);
    Floats w_hat(w.size());
    fake_quantize(&q, w_hat, 2);
    EXPECT_EQ(q.rounded.codes, start.codes) << name_of(c);
    EXPECT_EQ(q.rounded.scales, start.scales) << name_of(c);
    // Weights well inside their cells are left alone.
    FakeQuant nearest = make(c, w);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const auto n = static_cast<int64_t>(i) / kColumns, k = static_cast<int64_t>(i) % kColumns;
      const GroupFit fit = fit_of(nearest.rounded, n, k / nearest.rounded.group);
      const float level = fit.scale * (static_cast<float>(nearest.rounded.codes[i]) -
                                       0.5f * static_cast<float>(fit.zero2));
      if (std::abs(w[i] - level) < 0.44f * fit.scale) {
        EXPECT_EQ(nearest.master[i], w[i]);
      }
    }
  }
}

TEST(FakeQuant, BackwardIsTheSurrogatesGradient) {
  for (const Case& c : kCases) {
    FakeQuant q = make(c, random_weights(kRows * kColumns, 4));
    q.master = random_weights(kRows * kColumns, 4);  // not moved into cells: some are clipped
    const auto G = random_weights(kRows * kColumns, 5, 1.0f);
    Floats w_hat(G.size()), d_master(G.size()), d_scale(q.log_scale.size());
    fake_quantize(&q, w_hat, 1);
    fake_quantize_backward(q, G, d_master, d_scale, 1);
    if (c.bits < 8) {
      EXPECT_GT(std::count(d_master.begin(), d_master.end(), 0.0f), 0) << name_of(c);
    }
    const Surrogate surrogate(q);
    const auto loss = [&] { return surrogate(G); };
    expect_gradient(name_of(c) + ", masters", q.master, d_master, loss, 1e-4);
    expect_gradient(name_of(c) + ", scales", q.log_scale, d_scale, loss, 1e-3);

    Floats in_place = G, other(d_scale.size());
    fake_quantize_backward(q, in_place, in_place, other, 3);
    EXPECT_EQ(in_place, d_master);
    EXPECT_EQ(other, d_scale);
  }
}

// w^ is homogeneous of degree 1 in (w, s).
TEST(FakeQuant, GradientsObeyTheHomogeneityIdentity) {
  for (const Case& c : kCases) {
    FakeQuant q = make(c, random_weights(kRows * kColumns, 6));
    q.master = random_weights(kRows * kColumns, 6);
    const auto G = random_weights(kRows * kColumns, 7, 1.0f);
    Floats w_hat(G.size()), d_master(G.size()), d_scale(q.log_scale.size());
    fake_quantize(&q, w_hat, 1);
    fake_quantize_backward(q, G, d_master, d_scale, 1);
    const Rounded& r = q.rounded;
    for (int64_t n = 0; n < r.N; ++n)
      for (int64_t g = 0; g < groups_of(r); ++g) {
        double left = d_scale[static_cast<std::size_t>(n * groups_of(r) + g)], right = 0, size = 0;
        for (int64_t k = g * r.group; k < std::min(r.K, (g + 1) * r.group); ++k) {
          const auto i = static_cast<std::size_t>(n * r.K + k);
          left += static_cast<double>(d_master[i]) * q.master[i];
          right += static_cast<double>(G[i]) * w_hat[i];
          size += std::abs(static_cast<double>(G[i]) * w_hat[i]);
        }
        EXPECT_NEAR(left, right, 1e-6 * size) << name_of(c) << ", row " << n << ", group " << g;
      }
  }
}

TEST(FakeQuant, AGroupOfZerosStaysZero) {
  Floats w = random_weights(kRows * kColumns, 8);
  std::fill_n(w.begin(), 64, 0.0f);
  FakeQuant q = make({Grid::kSeq, 4, 64}, w);
  Floats w_hat(w.size()), d_scale(q.log_scale.size());
  fake_quantize(&q, w_hat, 1);
  Floats G(w.size(), 1.0f);
  fake_quantize_backward(q, G, G, d_scale, 1);
  for (std::size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(w_hat[i], 0.0f);
    EXPECT_EQ(G[i], 0.0f);
  }
  EXPECT_EQ(d_scale[0], 0.0f);
  EXPECT_NE(d_scale[1], 0.0f);
}

}  // namespace
}  // namespace crumb::quant::train

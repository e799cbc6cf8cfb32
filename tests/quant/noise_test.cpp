// Pseudo-noise: its generator, its gradients against differences with the noise frozen, and what it
// is for: it comes to rest where the straight-through estimator oscillates.
#include "quant/train/noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "quant/train/fake_quant.h"
#include "quant/train/input_quant.h"
#include "tests/quant/finite_difference.h"

namespace crumb::quant::train {
namespace {

using kernels::Grid;
using Floats = std::vector<float>;
constexpr int64_t kRows = 5, kColumns = 64;

TEST(Noise, IsUniformAndAnotherForEveryStepAndWeight) {
  const uint64_t seed = noise_seed(1, 7);
  double sum = 0, square = 0, neighbours = 0;
  std::vector<int> bins(16);
  constexpr int n = 1 << 16;
  float last = 0;
  for (int i = 0; i < n; ++i) {
    const float eps = noise(seed, static_cast<uint64_t>(i));
    ASSERT_GE(eps, -0.5f);
    ASSERT_LT(eps, 0.5f);
    sum += static_cast<double>(eps);
    square += static_cast<double>(eps) * static_cast<double>(eps);
    neighbours += static_cast<double>(eps) * static_cast<double>(last);
    last = eps;
    ++bins[static_cast<std::size_t>((eps + 0.5f) * 16)];
  }
  EXPECT_NEAR(sum / n, 0, 5e-3);
  EXPECT_NEAR(square / n, 1.0 / 12, 2e-3);
  EXPECT_NEAR(neighbours / n, 0, 2e-3);
  for (const int count : bins) EXPECT_NEAR(count, n / 16, 300);
  EXPECT_NE(noise_seed(1, 7), noise_seed(1, 8));
  EXPECT_NE(noise_seed(1, 7), noise_seed(2, 7));
  EXPECT_NE(noise(seed, 3), noise(noise_seed(1, 8), 3));
}

struct Case {
  Grid grid;
  int scale_bits;
  double bits;
};
constexpr Case kCases[] = {{Grid::kSeq, 2, 2},
                           {Grid::kSeq, 4, 2.6},
                           {Grid::kSeq, 4, 7.3},
                           {Grid::kLsq, 3, 3.5},
                           {Grid::kLsq, 8, 2.2}};

struct Matrix {
  Floats master, log_scale;
};
// Truncations about 1; no weight within 0.15 of one, so that differences do not step over it.
Matrix make(const Case& c) {
  Matrix m{random_weights(kRows * kColumns, 1, 0.8f), {}};
  const NoiseSteps steps = noise_steps({{}, {}, 0, c.grid, c.scale_bits, c.bits, 0, 0});
  for (int64_t n = 0; n < kRows; ++n) {
    const float alpha = 0.9f + 0.05f * static_cast<float>(n);
    const auto scale = alpha / static_cast<float>(steps.alpha);
    m.log_scale.push_back(std::log(scale));
    const float high =
        c.grid == Grid::kLsq ? alpha - scale * static_cast<float>(steps.step) : alpha;
    for (int64_t k = 0; k < kColumns; ++k) {
      float& w = m.master[static_cast<std::size_t>(n * kColumns + k)];
      for (const float border : {-alpha, high})
        if (std::abs(w - border) < 0.15f) w = border + (w < border ? -0.15f : 0.15f);
    }
  }
  return m;
}

TEST(Noise, GradientsAreDifferencesWithTheNoiseFrozen) {
  const Floats G = random_weights(kRows * kColumns, 2, 1.0f);
  for (const Case& c : kCases) {
    Matrix m = make(c);
    double bits = c.bits;
    const auto noisy = [&] {
      return NoisyMatrix{m.master, m.log_scale, kColumns, c.grid, c.scale_bits, bits, 99, 1000};
    };
    const auto loss = [&] {
      Floats y(G.size());
      noisy_weights(noisy(), y);
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i)
        sum += static_cast<double>(G[i]) * static_cast<double>(y[i]);
      return sum;
    };
    Floats d_master(G.size()), d_log_scale(static_cast<std::size_t>(kRows));
    const double d_bits = noisy_weights_backward(noisy(), G, d_master, d_log_scale);
    const std::string name =
        "grid " + std::to_string(static_cast<int>(c.grid)) + ", bits " + std::to_string(c.bits);
    const auto outside = std::count(d_master.begin(), d_master.end(), 0.0f);
    EXPECT_GT(outside, 5) << name;
    EXPECT_LT(outside, kRows * kColumns / 2) << name;
    expect_gradient(name + ", masters", m.master, d_master, loss, 1e-3, 3e-3f);
    expect_gradient(name + ", log scales", m.log_scale, d_log_scale, loss, 1e-3);
    constexpr double h = 1e-2;
    const auto at = [&](double change) {
      bits = c.bits + change;
      const double value = loss();
      bits = c.bits;
      return value;
    };
    const double slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
    EXPECT_NEAR(slope, d_bits, 1e-3 * std::abs(d_bits) + 1e-4) << name;
  }
}

// A weight that is truncated has the value that rounding gives it, and one that is not lies within
// half a step of itself, as rounding leaves it.
TEST(Noise, ErrsNoFurtherThanRounding) {
  for (const Grid grid : {Grid::kSeq, Grid::kLsq}) {
    const Matrix m = make({grid, 3, 3});
    Rounded rounded = make_rounded(kRows, kColumns, 3, 0, grid);
    std::fill(rounded.scales.begin(), rounded.scales.end(), uint16_t{0x3c00});
    FakeQuant quant{rounded, m.master, m.log_scale};
    Floats hard(m.master.size()), soft(hard.size()), G(hard.size(), 1.0f), inside(hard.size()),
        d_log_scale(static_cast<std::size_t>(kRows));
    fake_quantize(&quant, hard);
    const NoisyMatrix noisy{m.master, m.log_scale, kColumns, grid, 3, 3, 5, 0};
    noisy_weights(noisy, soft);
    noisy_weights_backward(noisy, G, inside, d_log_scale);
    for (std::size_t i = 0; i < hard.size(); ++i) {
      const float step = std::exp(m.log_scale[i / kColumns]);
      if (inside[i] == 0) {
        ASSERT_NEAR(soft[i], hard[i], 1e-3f * std::abs(hard[i]));  // scales are stored in binary16
      } else {
        ASSERT_LE(std::abs(soft[i] - m.master[i]), 0.5001f * step);
      }
    }
  }
}

TEST(Noise, GradientsOfInputsAreDifferencesWithTheNoiseFrozen) {
  constexpr float alpha = 1.1f;
  Floats x = random_weights(400, 4, 0.8f);
  for (float& v : x)
    for (const float border : {-alpha, alpha})
      if (std::abs(v - border) < 0.15f) v = border + (v < border ? -0.15f : 0.15f);
  const Floats G = random_weights(400, 5, 1.0f);
  Floats log_alpha = {std::log(alpha)};
  const auto quant = [&](bool noisy) { return InputQuant{4, log_alpha[0], noisy, 3, 77}; };
  const auto loss = [&] {
    Floats y(x.size());
    quantize_input(quant(true), x, y);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      sum += static_cast<double>(G[i]) * static_cast<double>(y[i]);
    return sum;
  };
  Floats dx = G;
  const auto d_alpha = static_cast<float>(quantize_input_backward(quant(true), x, dx));
  expect_gradient("inputs", x, dx, loss, 1e-3, 3e-3f);
  expect_gradient("log alpha", log_alpha, Floats{d_alpha}, loss, 1e-3);
  // Rounding: levels are n steps of alpha / n, and the mask is the same.
  Floats y(x.size()), masked = G;
  quantize_input(quant(false), x, y);
  quantize_input_backward(quant(false), x, masked);
  EXPECT_EQ(masked, dx);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const float level = y[i] / alpha * 7;
    ASSERT_NEAR(level, std::nearbyint(level), 1e-4);
    ASSERT_LE(std::abs(y[i]), alpha * 1.0001f);
    ASSERT_LE(std::abs(y[i] - std::clamp(x[i], -alpha, alpha)), alpha / 14 * 1.001f);
  }
}

TEST(Noise, AnInputsTruncationIsFittedBelowItsOutliers) {
  const Floats x = random_weights(2000, 6, 1.0f);  // a few eight times as large
  double largest = 0;
  for (const float v : x) largest = std::max(largest, std::abs(static_cast<double>(v)));
  EXPECT_LT(fitted_log_alpha(x, 4), std::log(0.7 * largest));
  EXPECT_NEAR(fitted_log_alpha(Floats{-2, 1, 0}, 8), std::log(2.0), 1e-6);
  EXPECT_EQ(fitted_log_alpha(Floats(5), 8), 0);
}

// One weight that is its own target, so that only the scale learns: 0.5 (Q(w) - w)^2. Rounding with
// the straight-through estimator shrinks the scale until the weight falls out of the last cell, is
// thrown back, and so on for ever; noise shrinks it until the weight is truncated and rests there.
TEST(Noise, ComesToRestWhereTheStraightThroughEstimatorOscillates) {
  constexpr int kSteps = 1000, kLast = 200;
  constexpr float rate = 0.1f;
  const auto spread = [&](float start, const std::function<float(float, int)>& d_log_scale) {
    float log_scale = start;
    double sum = 0, square = 0;
    for (int t = 0; t < kSteps; ++t) {
      log_scale -= rate * d_log_scale(log_scale, t);
      if (t < kSteps - kLast) continue;
      const double scale = std::exp(static_cast<double>(log_scale));
      sum += scale / kLast;
      square += scale * scale / kLast;
    }
    return std::sqrt(std::max(0.0, square - sum * sum));
  };
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Floats w = {0.7f + 0.6f * (noise(seed, 0) + 0.5f)};
    // Beyond the last level, 1.5 scales, by up to 0.8 of a scale.
    const float start = std::log(w[0] / (1.6f + 0.7f * (noise(seed, 1) + 0.5f)));
    const double rounded = spread(start, [&](float log_scale, int) {
      Rounded form = make_rounded(1, 1, 2, 0, Grid::kSeq);
      form.scales[0] = 0x3c00;
      FakeQuant quant{form, w, {log_scale}};
      Floats y(1), G(1), d_master(1), d(1);
      fake_quantize(&quant, y);
      G[0] = y[0] - w[0];
      fake_quantize_backward(quant, G, d_master, d);
      return d[0];
    });
    const double noisy = spread(start, [&](float log_scale, int t) {
      const Floats a = {log_scale};
      const NoisyMatrix m{w, a, 1, Grid::kSeq, 2, 2, noise_seed(seed, t), 0};
      Floats y(1), G(1), d_master(1), d(1);
      noisy_weights(m, y);
      G[0] = y[0] - w[0];
      noisy_weights_backward(m, G, d_master, d);
      return d[0];
    });
    EXPECT_GT(rounded, 1e-3) << seed;
    EXPECT_LT(noisy, rounded / 5) << seed;
  }
}

}  // namespace
}  // namespace crumb::quant::train

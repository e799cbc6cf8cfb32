#include "quant/train/noise.h"

#include <cassert>
#include <cmath>
#include <numbers>

namespace crumb::quant::train {
namespace {

// SplitMix64's finaliser (Steele et al., 2014).
uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Levels of one row.
struct Row {
  float step, alpha, high;
  Row(float log_scale, const NoisyMatrix& m) {
    const NoiseSteps steps = noise_steps(m);
    const double scale = std::exp(static_cast<double>(log_scale));
    step = static_cast<float>(scale * steps.step);
    alpha = static_cast<float>(scale * steps.alpha);
    high = m.grid == kernels::Grid::kLsq ? alpha - step : alpha;
  }
  struct Value {
    float y, e;
    bool inside;
  };
  Value at(float w, float eps) const {
    if (w <= -alpha) return {-alpha, 0.0f, false};
    if (w >= high) return {high, high - alpha, false};
    return {w + eps * step, eps * step, true};
  }
};

template <class Work>
void for_rows(const NoisyMatrix& m, const Work& work) {
  assert(m.master.size() == m.log_scale.size() * static_cast<std::size_t>(m.K));
  for (std::size_t n = 0; n < m.log_scale.size(); ++n)
    work(n, n * static_cast<std::size_t>(m.K), Row(m.log_scale[n], m));
}

}  // namespace

float noise(uint64_t seed, uint64_t index) {
  const uint64_t bits = mixed(seed + (index + 1) * 0x9e3779b97f4a7c15ULL);
  return static_cast<float>(bits >> 40) * 0x1p-24f - 0.5f;
}

uint64_t noise_seed(uint64_t run_seed, int64_t step) {
  return mixed(mixed(run_seed + 0x9e3779b97f4a7c15ULL) + static_cast<uint64_t>(step));
}

NoiseSteps noise_steps(const NoisyMatrix& m) {
  const bool lsq = m.grid == kernels::Grid::kLsq;
  const auto zero = [&](double bits) { return 0.5 * (std::exp2(bits) - (lsq ? 0 : 1)); };
  const double alpha = zero(m.scale_bits);
  return {alpha / zero(m.bits), alpha, -std::numbers::ln2 * 0.5 * std::exp2(m.bits) / zero(m.bits)};
}

void noisy_weights(const NoisyMatrix& m, std::span<float> y) {
  assert(y.size() == m.master.size());
  for_rows(m, [&](std::size_t, std::size_t at, const Row& row) {
    for (std::size_t i = at; i < at + static_cast<std::size_t>(m.K); ++i)
      y[i] = row.at(m.master[i], noise(m.seed, m.first + i)).y;
  });
}

double noisy_weights_backward(const NoisyMatrix& m, std::span<const float> G,
                              std::span<float> d_master, std::span<float> d_log_scale) {
  assert(G.size() == m.master.size() && d_master.size() == G.size());
  double errors = 0;
  for_rows(m, [&](std::size_t n, std::size_t at, const Row& row) {
    double pull = 0, error = 0;
    for (std::size_t i = at; i < at + static_cast<std::size_t>(m.K); ++i) {
      const float g = G[i];
      const auto [y, e, inside] = row.at(m.master[i], noise(m.seed, m.first + i));
      pull += static_cast<double>(g) * static_cast<double>(inside ? e : y);
      error += static_cast<double>(g) * static_cast<double>(e);
      d_master[i] = inside ? g : 0.0f;
    }
    d_log_scale[n] = static_cast<float>(pull);
    errors += error;
  });
  return noise_steps(m).d_bits * errors;
}

}  // namespace crumb::quant::train

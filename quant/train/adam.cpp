#include "quant/train/adam.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <numbers>

namespace crumb::quant::train {

AdamStep adam_step(const AdamOptions& options, int64_t t, double rate) {
  assert(t >= 1);
  const auto power = static_cast<double>(t);
  AdamStep step;
  step.rate = static_cast<float>(rate);
  step.decay = static_cast<float>(rate * options.decay);
  step.beta1 = static_cast<float>(options.beta1);
  step.beta2 = static_cast<float>(options.beta2);
  step.mean_factor = static_cast<float>(1 / (1 - std::pow(options.beta1, power)));
  step.square_factor = static_cast<float>(1 / (1 - std::pow(options.beta2, power)));
  step.eps = static_cast<float>(options.eps);
  return step;
}

void adam(const AdamStep& step, std::span<const float> g, float gradient_factor, std::span<float> w,
          std::span<float> mean, std::span<float> square) {
  assert(g.size() == w.size() && mean.size() == w.size() && square.size() == w.size());
  // Raw pointers and locals: the compiler sees that nothing else changes and vectorises.
  const AdamStep s = step;
  const float* in = g.data();
  float* weight = w.data();
  float* m = mean.data();
  float* v = square.data();
  const std::size_t n = w.size();
  for (std::size_t i = 0; i < n; ++i) {
    const float x = in[i] * gradient_factor;
    m[i] = s.beta1 * m[i] + (1.0f - s.beta1) * x;
    v[i] = s.beta2 * v[i] + (1.0f - s.beta2) * (x * x);
    const float move = m[i] * s.mean_factor / (std::sqrt(v[i] * s.square_factor) + s.eps);
    weight[i] -= s.rate * move + s.decay * weight[i];
  }
}

double cosine_schedule(int64_t t, int64_t steps, int64_t warmup, double floor) {
  assert(t >= 1 && warmup >= 0 && warmup < steps);
  if (t <= warmup) return static_cast<double>(t) / static_cast<double>(warmup + 1);
  const double part =
      std::min(1.0, static_cast<double>(t - 1 - warmup) / static_cast<double>(steps - warmup));
  return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * part));
}

double square_sum(std::span<const float> g) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> sum{};
  const std::size_t whole = g.size() / kLanes * kLanes;
  for (std::size_t i = 0; i < whole; i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      sum[lane] += static_cast<double>(g[i + lane]) * static_cast<double>(g[i + lane]);
  for (std::size_t i = whole; i < g.size(); ++i)
    sum[i - whole] += static_cast<double>(g[i]) * static_cast<double>(g[i]);
  double total = 0;
  for (const double lane : sum) total += lane;
  return total;
}

double clip_factor(double square_sum, double limit) {
  const double norm = std::sqrt(square_sum);
  return norm > limit ? limit / norm : 1.0;
}

}  // namespace crumb::quant::train

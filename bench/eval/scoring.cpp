#include "bench/eval/scoring.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>

namespace crumb::eval {
namespace {

// The first of the largest values.
std::size_t top_index(std::span<const float> x) {
  return static_cast<std::size_t>(std::max_element(x.begin(), x.end()) - x.begin());
}

// exp(x) for x <= 0 to 2e-7 of itself: 2^n (1 + r + ..), n = round(x / ln 2), Taylor to r^6 with
// |r| <= ln(2) / 2. Plain arithmetic, so that the compiler makes vectors of it; without libm and
// fused operations the bits are those of every machine.
inline float exp_below_one(float x) {
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the integer in the low bits
  constexpr float kInverseLn2 = 0x1.715476p+0f, kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  x = x < -87.0f ? -87.0f : x;  // 2^-125: nothing beside the largest term
  const float shifted = x * kInverseLn2 + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) +
                              (std::bit_cast<uint32_t>(shifted) << 23));
}

float largest(std::span<const float> x) {
  constexpr std::size_t kLanes = 16;
  float most[kLanes];
  std::fill(most, most + kLanes, x[0]);
  std::size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      most[lane] = x[i + lane] > most[lane] ? x[i + lane] : most[lane];
  for (; i < x.size(); ++i) most[0] = x[i] > most[0] ? x[i] : most[0];
  return *std::max_element(most, most + kLanes);
}

}  // namespace

// Sums of 16 lanes over 256 values in float, those in double: each step adds to something of its
// own size.
double log_sum_exp(std::span<const float> logits) {
  constexpr std::size_t kLanes = 16, kBlock = 256;
  const float top = largest(logits);
  double sum = 0;
  while (!logits.empty()) {
    const auto block = logits.first(std::min(kBlock, logits.size()));
    float lanes[kLanes] = {};
    std::size_t i = 0;
    for (; i + kLanes <= block.size(); i += kLanes)
      for (std::size_t lane = 0; lane < kLanes; ++lane)
        lanes[lane] += exp_below_one(block[i + lane] - top);
    for (; i < block.size(); ++i) lanes[0] += exp_below_one(block[i] - top);
    float folded = 0;
    for (const float lane : lanes) folded += lane;
    sum += static_cast<double>(folded);
    logits = logits.subspan(block.size());
  }
  return static_cast<double>(top) + std::log(sum);
}

double negative_log_likelihood(std::span<const float> logits, int32_t target) {
  return log_sum_exp(logits) - logits[static_cast<std::size_t>(target)];
}

Divergence compare(std::span<const float> base, std::span<const float> model, int32_t target) {
  assert(base.size() == model.size());
  const std::size_t base_top = top_index(base);
  const std::size_t model_top = top_index(model);
  const double base_max = base[base_top];
  const double model_max = model[model_top];
  // log p - log q = (x - y) - (lse_x - lse_y): one pass, and exactly 0 for equal rows.
  double base_sum = 0;
  double model_sum = 0;
  double weighted = 0;
  for (std::size_t i = 0; i < base.size(); ++i) {
    const double x = base[i];
    const double y = model[i];
    const double p = std::exp(x - base_max);
    base_sum += p;
    weighted += p * (x - y);
    model_sum += std::exp(y - model_max);
  }
  const double base_lse = base_max + std::log(base_sum);
  const double model_lse = model_max + std::log(model_sum);
  Divergence d;
  // Rounding may leave -1e-16 where the truth is 0.
  d.kld = std::max(0.0, weighted / base_sum - (base_lse - model_lse));
  d.nll_base = base_lse - base[static_cast<std::size_t>(target)];
  d.nll_model = model_lse - model[static_cast<std::size_t>(target)];
  d.same_top = base_top == model_top;
  return d;
}

Mean mean_of(std::span<const double> values) {
  assert(!values.empty());
  const auto n = static_cast<double>(values.size());
  Mean result;
  for (const double v : values) result.mean += v;
  result.mean /= n;
  if (values.size() == 1) return result;
  double squares = 0;
  for (const double v : values) squares += (v - result.mean) * (v - result.mean);
  result.error = std::sqrt(squares / (n - 1) / n);
  return result;
}

double quantile(std::span<const double> sorted, double q) {
  assert(!sorted.empty() && q >= 0 && q <= 1);
  const double rank = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(rank);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = rank - static_cast<double>(below);
  return sorted[below] + part * (sorted[above] - sorted[below]);
}

}  // namespace crumb::eval

#include "bench/eval/scoring.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace crumb::eval {
namespace {

// The first of the largest values.
std::size_t top_index(std::span<const float> x) {
  return static_cast<std::size_t>(std::max_element(x.begin(), x.end()) - x.begin());
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const double top = logits[top_index(logits)];
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - top);
  return top + std::log(sum);
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

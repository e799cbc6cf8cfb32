// Arithmetic on rows of logits, in one fixed order: in double, but for log_sum_exp's terms.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace crumb::eval {

// log sum_i exp(x_i), the maximum subtracted first, to 1e-6. x [V] finite, V >= 1.
double log_sum_exp(std::span<const float> logits);

// -log P(target) = log_sum_exp(x) - x[target].
double negative_log_likelihood(std::span<const float> logits, int32_t target);

struct Divergence {
  double kld =
      0;  // sum_i p_i (log p_i - log q_i), p from base, q from model; 0 if the rows are equal
  double nll_base = 0, nll_model = 0;
  bool same_top = false;
};
Divergence compare(std::span<const float> base, std::span<const float> model, int32_t target);

// Mean and its standard error sd / sqrt(n) (n - 1 in sd; 0 for one value). Not empty.
struct Mean {
  double mean = 0, error = 0;
};
Mean mean_of(std::span<const double> values);

// Value at rank q * (n - 1) of sorted values, linear in between. Not empty.
double quantile(std::span<const double> sorted, double q);

}  // namespace crumb::eval

// AdamW (Loshchilov & Hutter, arXiv:1711.05101) over spans, and the cosine schedule.
//
//   m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,
//   w -= rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay w)
//
// Every element is worked on alone, so results do not depend on how spans are divided over threads.
#pragma once
#include <cstdint>
#include <span>

namespace crumb::quant::train {

struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.99;
  double eps = 1e-8;
  double decay = 0;  // of the weights, times the rate
};

// The factors of step t = 1, 2, ..., computed once for all spans of the step.
struct AdamStep {
  float rate = 0, decay = 0;
  float beta1 = 0, beta2 = 0;
  float mean_factor = 0, square_factor = 0;  // 1 / (1 - beta^t)
  float eps = 0;
};
AdamStep adam_step(const AdamOptions& options, int64_t t, double rate);

// w, g, mean, square of one length; `gradient_factor` multiplies every g first (clipping).
void adam(const AdamStep& step, std::span<const float> g, float gradient_factor, std::span<float> w,
          std::span<float> mean, std::span<float> square);

// Of step t = 1..steps: rises linearly over the first `warmup` steps, then falls from 1 to `floor`
// by half a cosine; exactly `floor` after the last step (t = steps + 1).
double cosine_schedule(int64_t t, int64_t steps, int64_t warmup, double floor);

// Sum of squares in double, in an order that depends on the length only.
double square_sum(std::span<const float> g);
// The factor that brings a gradient of this sum of squares to the norm `limit`, at most 1.
double clip_factor(double square_sum, double limit);

}  // namespace crumb::quant::train

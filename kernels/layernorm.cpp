#include "kernels/layernorm.h"

#include <cmath>

#include "kernels/scalar_math.h"

namespace crumb::kernels {
namespace {

// Sum of term(i), i < n, in 16 lanes. The whole blocks' inner loop is one that compilers turn into
// vectors whatever the instruction set, for it says the order itself.
template <class Term>
float sum_in_lanes(int64_t n, Term&& term) noexcept {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  for (int64_t lane = 0; i + lane < n; ++lane) lanes[lane] += term(i + lane);
  return fold_lanes(lanes);
}

}  // namespace

void layernorm(const float* x, const float* weight, const float* bias, int64_t n, float eps,
               float* y) noexcept {
  const float count = static_cast<float>(n);
  const float mean = sum_in_lanes(n, [x](int64_t i) { return x[i]; }) / count;
  const float variance = sum_in_lanes(n,
                                      [x, mean](int64_t i) {
                                        const float difference = x[i] - mean;
                                        return difference * difference;
                                      }) /
                         count;
  const float scale = 1.0f / std::sqrt(variance + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

}  // namespace crumb::kernels

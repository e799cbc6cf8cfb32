#include "kernels/gelu.h"

#include "kernels/scalar_math.h"

namespace crumb::kernels {

void gelu_tanh_mul(float* gate, const float* up, int64_t n) noexcept {
  constexpr float kTwice = 1.5957691216057308f;  // 2 sqrt(2 / pi)
  for (int64_t i = 0; i < n; ++i) {
    const float x = gate[i];
    const float twice_u = kTwice * (x + 0.044715f * (x * x * x));
    gate[i] = x / (1.0f + exp_f32(-twice_u)) * up[i];
  }
}

}  // namespace crumb::kernels

// GeGLU's elementwise part (Shazeer, "GLU variants improve transformer", 2020), one code for all
// instruction sets.
#pragma once
#include <cstdint>

namespace crumb::kernels {

// gate = gelu(gate) * up, n values, by the tanh form
//   gelu(x) = x / 2 * (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715 x^3)
void gelu_tanh_mul(float* gate, const float* up, int64_t n) noexcept;

}  // namespace crumb::kernels

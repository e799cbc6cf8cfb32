// GeGLU's elementwise part (Shazeer, "GLU variants improve transformer", 2020), one code for all
// instruction sets.
#pragma once
#include <cstdint>

namespace crumb::kernels {

// gate = gelu(gate) * up, n values, by the tanh form
//   gelu(x) = x / 2 * (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715 x^3)
void gelu_tanh_mul(float* gate, const float* up, int64_t n) noexcept;

// x = gelu(x) = x / 2 * (1 + erf(x / sqrt(2))), n values (Hendrycks, Gimpel, "Gaussian error linear
// units", 2016). erf is odd / even, polynomials of degree 13 and 8 in z = clamp(x / sqrt(2)), below
// 4e-7 from the exact one (tests/kernels/gelu_test.cpp).
void gelu_erf(float* x, int64_t n) noexcept;

}  // namespace crumb::kernels

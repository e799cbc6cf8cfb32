// GELU of vision towers, one code for all instruction sets (GeGLU is in backend.h).
#pragma once
#include <cstdint>

namespace crumb::kernels {

// x = gelu(x) = x / 2 * (1 + erf(x / sqrt(2))), n values (Hendrycks, Gimpel, "Gaussian error linear
// units", 2016). erf is odd / even, polynomials of degree 13 and 8 in z = clamp(x / sqrt(2)), below
// 4e-7 from the exact one (tests/kernels/gelu_test.cpp).
void gelu_erf(float* x, int64_t n) noexcept;

}  // namespace crumb::kernels

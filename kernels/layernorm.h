// Layer normalisation (Ba, Kiros, Hinton, "Layer normalization", 2016), one code for all
// instruction sets.
#pragma once
#include <cstdint>

namespace crumb::kernels {

// y = (x - mean) / sqrt(variance + eps) * weight + bias over n values; y may alias x. Sums keep the
// 16 lanes of backend.h, products and sums rounded one by one: the variance is that of the
// differences, (d * d) added.
void layernorm(const float* x, const float* weight, const float* bias, int64_t n, float eps,
               float* y) noexcept;

}  // namespace crumb::kernels

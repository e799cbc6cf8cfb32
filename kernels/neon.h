// What the files of the NEON backends share. Everything here has internal linkage or is always
// inlined, and these files call no inline function of another header at run time: the linker could
// pick a copy compiled with one file's instructions for the whole program.
#pragma once
#include <arm_neon.h>

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/scalar_math.h"
#include "kernels/unroll.h"

namespace crumb::kernels::neon {

// The functions that need base ARMv8-A only; contracts in backend.h.
void matmul_f32(const float* w, int64_t K, const float* x, int64_t T, Range rows, float* y,
                int64_t ldy) noexcept;
void quantize_row(const float* x, int64_t K, int64_t group, int64_t stride, int8_t* q,
                  float* scales, int32_t* sums) noexcept;
void rmsnorm(const float* x, const float* weight, int64_t n, float eps, float* y) noexcept;
void rope(float* x, int64_t heads, int64_t Dh, const float* cos, const float* sin) noexcept;
void silu_mul(float* gate, const float* up, int64_t n) noexcept;
void gelu_mul(float* gate, const float* up, int64_t n) noexcept;
void hadamard(float* x, const float* signs, int64_t K, int64_t block) noexcept;
void attend(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, int64_t count,
            float* scores) noexcept;
void to_f16(const float* x, int64_t n, uint16_t* y) noexcept;
float to_i8(const float* x, int64_t n, int8_t* y) noexcept;
int64_t argmax(const float* x, int64_t n) noexcept;

// The 16 virtual lanes of a reduction: lane i is v[i / 4][i % 4].
struct Lanes {
  float32x4_t v[4];
};

[[gnu::always_inline]] static inline Lanes no_lanes() {
  const float32x4_t zero = vdupq_n_f32(0.0f);
  return {{zero, zero, zero, zero}};
}

[[gnu::always_inline]] static inline float fold(const Lanes& lanes) {
  const float32x4_t four =
      vaddq_f32(vaddq_f32(lanes.v[0], lanes.v[2]), vaddq_f32(lanes.v[1], lanes.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

// exp_f32 of scalar_math.h in every lane, operation by operation.
[[gnu::always_inline]] static inline float32x4_t exp4(float32x4_t x) {
  constexpr float kC0 = kExpCoefficients[0], kC1 = kExpCoefficients[1], kC2 = kExpCoefficients[2];
  constexpr float kC3 = kExpCoefficients[3], kC4 = kExpCoefficients[4];
  const float32x4_t n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(kExpInverseLn2)));
  float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-kExpLn2High));
  r = vfmaq_f32(r, n, vdupq_n_f32(-kExpLn2Low));
  float32x4_t p = vfmaq_f32(vdupq_n_f32(kC3), vdupq_n_f32(kC4), r);
  p = vfmaq_f32(vdupq_n_f32(kC2), p, r);
  p = vfmaq_f32(vdupq_n_f32(kC1), p, r);
  p = vfmaq_f32(vdupq_n_f32(kC0), p, r);
  p = vfmaq_f32(r, vmulq_f32(r, r), p);
  const int32x4_t one_plus = vreinterpretq_s32_f32(vaddq_f32(p, vdupq_n_f32(1.0f)));
  const int32x4_t shift = vshlq_n_s32(vcvtq_s32_f32(n), 23);
  float32x4_t y = vreinterpretq_f32_s32(vaddq_s32(one_plus, shift));
  const float32x4_t infinity = vdupq_n_f32(__builtin_inff());
  y = vbslq_f32(vcgtq_f32(x, vdupq_n_f32(kExpHigh)), infinity, y);
  y = vbslq_f32(vcltq_f32(x, vdupq_n_f32(kExpLow)), vdupq_n_f32(0.0f), y);
  return vbslq_f32(vceqq_f32(x, x), y, x);
}

}  // namespace crumb::kernels::neon

// The NEON backends' functions on rows of floats, base ARMv8-A. Same bits as scalar.cpp, whose
// comments hold the formulas; here is only how four values go at once. Four registers are the 16
// virtual lanes.
#include "kernels/neon.h"

#include <arm_neon.h>

#include <cstdint>

namespace crumb::kernels::neon {
namespace {

constexpr float kQuantizeFloor = 0x1p-100f;

// Lane i % 16 += a[i] * b[i] for the last n < 16 products; adding zeros instead could turn -0 into
// +0.
[[gnu::always_inline]] inline void add_tail(const float* a, const float* b, int64_t n,
                                            Lanes& lanes) {
  float values[16];
  unroll<4>([&](int j) { vst1q_f32(values + 4 * j, lanes.v[j]); });
  for (int64_t i = 0; i < n; ++i) values[i] = __builtin_fmaf(a[i], b[i], values[i]);
  unroll<4>([&](int j) { lanes.v[j] = vld1q_f32(values + 4 * j); });
}

// Dots of x with `rows` rows of w, K apart.
template <int rows>
[[gnu::always_inline]] inline void dots(const float* w, const float* x, int64_t K, float* out) {
  Lanes lanes[rows];
  unroll<rows>([&](int r) { lanes[r] = no_lanes(); });
  int64_t i = 0;
  for (; i + 16 <= K; i += 16) {
    unroll<4>([&](int j) {
      const float32x4_t four = vld1q_f32(x + i + 4 * j);
      unroll<rows>([&](int r) {
        lanes[r].v[j] = vfmaq_f32(lanes[r].v[j], four, vld1q_f32(w + r * K + i + 4 * j));
      });
    });
  }
  unroll<rows>([&](int r) {
    if (i < K) add_tail(x + i, w + r * K + i, K - i, lanes[r]);
    out[r] = fold(lanes[r]);
  });
}

[[gnu::always_inline]] inline int32x4_t magnitude(float32x4_t x) {
  return vandq_s32(vreinterpretq_s32_f32(x), vdupq_n_s32(0x7fffffff));
}

float absmax(const float* x, int64_t n) {
  int32x4_t m = vdupq_n_s32(0);
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) m = vmaxq_s32(m, magnitude(vld1q_f32(x + i)));
  for (; i < n; ++i) m = vmaxq_s32(m, magnitude(vdupq_n_f32(x[i])));
  const int32_t bits = vmaxvq_s32(m);
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// Four values of q; vmaxnm and vminnm return the number if the other operand is NaN.
[[gnu::always_inline]] inline int32x4_t quantize4(float32x4_t x, float inverse) {
  const float32x4_t low = vmaxnmq_f32(vmulq_n_f32(x, inverse), vdupq_n_f32(-127.0f));
  return vcvtnq_s32_f32(vminnmq_f32(low, vdupq_n_f32(127.0f)));
}

float quantize_group(const float* x, int64_t n, int8_t* q, int32_t* sum) {
  const float m = absmax(x, n);
  *sum = 0;
  if (m < kQuantizeFloor) {
    for (int64_t i = 0; i < n; ++i) q[i] = 0;
    return 0.0f;
  }
  const float inverse = 127.0f / m;
  int32x4_t sums = vdupq_n_s32(0);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const int32x4_t a = quantize4(vld1q_f32(x + i), inverse);
    const int32x4_t b = quantize4(vld1q_f32(x + i + 4), inverse);
    sums = vaddq_s32(sums, vaddq_s32(a, b));
    vst1_s8(q + i, vmovn_s16(vcombine_s16(vmovn_s32(a), vmovn_s32(b))));
  }
  *sum = vaddvq_s32(sums);
  for (; i < n; ++i) {
    const int32_t v = vgetq_lane_s32(quantize4(vdupq_n_f32(x[i]), inverse), 0);
    q[i] = static_cast<int8_t>(v);
    *sum += v;
  }
  return m / 127.0f;
}

[[gnu::always_inline]] inline float32x4_t silu4(float32x4_t gate, float32x4_t up) {
  const float32x4_t below = vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(gate)));
  return vmulq_f32(vdivq_f32(gate, below), up);
}

[[gnu::always_inline]] inline float32x4_t gelu4(float32x4_t x, float32x4_t up) {
  const float32x4_t cube = vmulq_f32(vmulq_f32(x, x), x);
  const float32x4_t inner = vaddq_f32(x, vmulq_f32(vdupq_n_f32(kGeluCube), cube));
  const float32x4_t t = vmulq_f32(vdupq_n_f32(kGeluTwice), inner);
  const float32x4_t below = vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(t)));
  return vmulq_f32(vdivq_f32(x, below), up);
}

// Butterflies at distances 1 and 2 inside a register: the sums of partners, and their differences
// in the second half's lanes.
[[gnu::always_inline]] inline float32x4_t hadamard4(float32x4_t x) {
  float32x4_t a = vtrn1q_f32(x, x), b = vtrn2q_f32(x, x);
  x = vtrn1q_f32(vaddq_f32(a, b), vsubq_f32(a, b));
  const float64x2_t pairs = vreinterpretq_f64_f32(x);
  a = vreinterpretq_f32_f64(vtrn1q_f64(pairs, pairs));
  b = vreinterpretq_f32_f64(vtrn2q_f64(pairs, pairs));
  return vcombine_f32(vget_low_f32(vaddq_f32(a, b)), vget_low_f32(vsubq_f32(a, b)));
}

}  // namespace

void matmul_f32(const float* w, int64_t K, const float* x, int64_t T, Range rows, float* y,
                int64_t ldy) noexcept {
  int64_t n = rows.begin;
  for (; n + 4 <= rows.end; n += 4) {
    for (int64_t t = 0; t < T; ++t) dots<4>(w + n * K, x + t * K, K, y + t * ldy + n);
  }
  for (; n < rows.end; ++n) {
    for (int64_t t = 0; t < T; ++t) dots<1>(w + n * K, x + t * K, K, y + t * ldy + n);
  }
}

void quantize_row(const float* x, int64_t K, int64_t group, int64_t stride, int8_t* q,
                  float* scales, int32_t* sums) noexcept {
  int64_t g = 0;
  for (int64_t first = 0; first < K; first += group, ++g) {
    const int64_t left = K - first;
    scales[g] = quantize_group(x + first, left < group ? left : group, q + first, sums + g);
  }
  for (int64_t k = K; k < stride; ++k) q[k] = 0;
}

void rmsnorm(const float* x, const float* weight, int64_t n, float eps, float* y) noexcept {
  float squares;
  dots<1>(x, x, n, &squares);
  const float r = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps);
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(weight + i)));
  }
  for (; i < n; ++i) y[i] = (x[i] * r) * weight[i];
}

void rope(float* x, int64_t heads, int64_t Dh, const float* cos, const float* sin) noexcept {
  for (int64_t h = 0; h < heads; ++h, x += Dh) {
    int64_t i = 0;
    for (; i + 4 <= Dh / 2; i += 4) {
      const float32x4x2_t v = vld2q_f32(x + 2 * i);  // a and b apart
      const float32x4_t c = vld1q_f32(cos + i), s = vld1q_f32(sin + i);
      float32x4x2_t rotated;
      rotated.val[0] = vfmaq_f32(vnegq_f32(vmulq_f32(v.val[1], s)), v.val[0], c);
      rotated.val[1] = vfmaq_f32(vmulq_f32(v.val[1], c), v.val[0], s);
      vst2q_f32(x + 2 * i, rotated);
    }
    for (; i < Dh / 2; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
      x[2 * i + 1] = __builtin_fmaf(a, sin[i], b * cos[i]);
    }
  }
}

void silu_mul(float* gate, const float* up, int64_t n) noexcept {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(gate + i, silu4(vld1q_f32(gate + i), vld1q_f32(up + i)));
  for (; i < n; ++i) {
    gate[i] = vgetq_lane_f32(silu4(vdupq_n_f32(gate[i]), vdupq_n_f32(up[i])), 0);
  }
}

void gelu_mul(float* gate, const float* up, int64_t n) noexcept {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(gate + i, gelu4(vld1q_f32(gate + i), vld1q_f32(up + i)));
  for (; i < n; ++i) {
    gate[i] = vgetq_lane_f32(gelu4(vdupq_n_f32(gate[i]), vdupq_n_f32(up[i])), 0);
  }
}

void hadamard(float* x, const float* signs, int64_t K, int64_t block) noexcept {
  const float32x4_t norm = vdupq_n_f32(1.0f / __builtin_sqrtf(static_cast<float>(block)));
  for (int64_t first = 0; first < K; first += block, x += block, signs += block) {
    for (int64_t i = 0; i < block; i += 4) {
      vst1q_f32(x + i, hadamard4(vmulq_f32(vld1q_f32(x + i), vld1q_f32(signs + i))));
    }
    for (int64_t h = 4; h < block; h *= 2) {
      const float32x4_t factor = 2 * h == block ? norm : vdupq_n_f32(1.0f);
      for (int64_t i = 0; i < block; i += 4) {
        if ((i & h) != 0) continue;
        const float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + h);
        vst1q_f32(x + i, vmulq_f32(vaddq_f32(a, b), factor));
        vst1q_f32(x + i + h, vmulq_f32(vsubq_f32(a, b), factor));
      }
    }
  }
}

void to_f16(const float* x, int64_t n, uint16_t* y) noexcept {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
  }
  for (; i < n; ++i) {
    y[i] = vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x[i]))), 0);
  }
}

float to_i8(const float* x, int64_t n, int8_t* y) noexcept {
  int32_t sum;
  return quantize_group(x, n, y, &sum);
}

// The maximum first, then the first place where it stands.
int64_t argmax(const float* x, int64_t n) noexcept {
  float32x4_t m = vdupq_n_f32(-__builtin_inff());
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) m = vmaxnmq_f32(m, vld1q_f32(x + i));
  float top = vmaxnmvq_f32(m);
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  for (i = 0; i < n; ++i) {
    if (x[i] == top) return i;
  }
  return 0;
}

}  // namespace crumb::kernels::neon

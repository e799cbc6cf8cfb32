// What the files of the avx2 backend share. Everything here has internal linkage or is always
// inlined, and these files call no inline function of another header at run time: the linker could
// pick a copy compiled with these flags for the whole program.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "kernels/backend.h"

namespace crumb::kernels::avx2 {

// The functions of the table `kAvx2`, which other tables take parts of; contracts in backend.h.
void matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
            int64_t ldy) noexcept;
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

// Shared constants of scalar_math.h, repeated because an ISA file includes no functions.
inline constexpr float kExpLow = -87.3f;
inline constexpr float kExpHigh = 88.72283f;
inline constexpr float kExpInverseLn2 = 0x1.715476p+0f;
inline constexpr float kGeluTwice = 1.5957691216057308f;
inline constexpr float kGeluCube = 0.044715f;
inline constexpr float kExpLn2High = 0x1.62e4p-1f;
inline constexpr float kExpLn2Low = 0x1.7f7d1cp-20f;
inline constexpr float kExpC0 = 0x1.fffffcp-2f;
inline constexpr float kExpC1 = 0x1.555492p-3f;
inline constexpr float kExpC2 = 0x1.5558f2p-5f;
inline constexpr float kExpC3 = 0x1.123a20p-7f;
inline constexpr float kExpC4 = 0x1.6a23d0p-10f;
inline constexpr float kInfinity = __builtin_inff();

// All ones in the first n of 8 lanes.
[[gnu::always_inline]] static inline __m256i first_lanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), lane);
}

[[gnu::always_inline]] static inline __m256 negate(__m256 x) {
  return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f));
}

// exp_f32 of scalar_math.h in every lane.
[[gnu::always_inline]] static inline __m256 exp8(__m256 x) {
  const __m256i n = _mm256_cvtps_epi32(_mm256_mul_ps(x, _mm256_set1_ps(kExpInverseLn2)));
  const __m256 whole = _mm256_cvtepi32_ps(n);
  __m256 r = _mm256_fmadd_ps(whole, _mm256_set1_ps(-kExpLn2High), x);
  r = _mm256_fmadd_ps(whole, _mm256_set1_ps(-kExpLn2Low), r);
  __m256 p = _mm256_set1_ps(kExpC4);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpC3));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpC2));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpC1));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(kExpC0));
  __m256 y = _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, r);
  y = _mm256_add_ps(y, _mm256_set1_ps(1.0f));
  y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), _mm256_slli_epi32(n, 23)));
  const __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(kExpLow), _CMP_LT_OQ);
  const __m256 high = _mm256_cmp_ps(x, _mm256_set1_ps(kExpHigh), _CMP_GT_OQ);
  y = _mm256_andnot_ps(low, y);
  y = _mm256_blendv_ps(y, _mm256_set1_ps(kInfinity), high);
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

// The 16 virtual lanes of a reduction.
struct Lanes {
  __m256 low = _mm256_setzero_ps();
  __m256 high = _mm256_setzero_ps();
};

[[gnu::always_inline]] static inline __m128 fold_to_4(const Lanes& lanes) {
  const __m256 v = _mm256_add_ps(lanes.low, lanes.high);
  return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

[[gnu::always_inline]] static inline float fold(const Lanes& lanes) {
  const __m128 four = fold_to_4(lanes);
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Readers of 8 values or of one, for the types of KvHead.
struct ReadF32 {
  using Value = float;
  [[gnu::always_inline]] static __m256 eight(const float* p) { return _mm256_loadu_ps(p); }
  [[gnu::always_inline]] static float one(const float* p) { return *p; }
};
struct ReadF16 {
  using Value = uint16_t;
  [[gnu::always_inline]] static __m256 eight(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  [[gnu::always_inline]] static float one(const uint16_t* p) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*p)));
  }
};
struct ReadI8 {
  using Value = int8_t;
  [[gnu::always_inline]] static __m256 eight(const int8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  [[gnu::always_inline]] static float one(const int8_t* p) { return static_cast<float>(*p); }
};

}  // namespace crumb::kernels::avx2

// What the AVX-512 files share. Everything here has internal linkage: a function with vague linkage
// compiled with these flags could be the copy that the linker picks for the whole program. For the
// same reason these files call no inline function of another header at run time.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/scalar_math.h"

namespace crumb::kernels {

// The functions of the table `kAvx512Vnni`, which other tables take parts of; contracts in
// backend.h.
void avx512vnni_matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                       int64_t ldy) noexcept;
// matmul for any number of tokens, made for many.
void avx512vnni_gemm(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                     int64_t ldy) noexcept;
void avx512vnni_matmul_f32(const float* w, int64_t K, const float* x, int64_t T, Range rows,
                           float* y, int64_t ldy) noexcept;
void avx512vnni_quantize_row(const float* x, int64_t K, int64_t group, int64_t stride, int8_t* q,
                             float* scales, int32_t* sums) noexcept;
void avx512vnni_rmsnorm(const float* x, const float* weight, int64_t n, float eps,
                        float* y) noexcept;
void avx512vnni_rope(float* x, int64_t heads, int64_t Dh, const float* cos,
                     const float* sin) noexcept;
void avx512vnni_silu_mul(float* gate, const float* up, int64_t n) noexcept;
void avx512vnni_gelu_mul(float* gate, const float* up, int64_t n) noexcept;
void avx512vnni_hadamard(float* x, const float* signs, int64_t K, int64_t block) noexcept;
void avx512vnni_to_f16(const float* x, int64_t n, uint16_t* y) noexcept;
float avx512vnni_to_i8(const float* x, int64_t n, int8_t* y) noexcept;
int64_t avx512vnni_argmax(const float* x, int64_t n) noexcept;
void avx512vnni_attend(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, int64_t count,
                       float* scores) noexcept;

// One zmm register is the 16 virtual lanes of backend.h.
inline constexpr int64_t kZmmLanes = kLanes;

// The first `count` of 16 lanes; none if count <= 0, all if count >= 16.
static inline __mmask16 first_lanes(int64_t count) noexcept {
  if (count >= kZmmLanes) return 0xffff;
  return count <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << count) - 1u);
}

// 16 lanes -> one value: lanes i += i + 8, then +4, +2, +1.
static inline float fold(__m512 lanes) noexcept {
  lanes = _mm512_add_ps(lanes, _mm512_shuffle_f32x4(lanes, lanes, 0x4e));
  lanes = _mm512_add_ps(lanes, _mm512_shuffle_f32x4(lanes, lanes, 0xb1));
  lanes = _mm512_add_ps(lanes, _mm512_permute_ps(lanes, 0x4e));
  lanes = _mm512_add_ps(lanes, _mm512_permute_ps(lanes, 0xb1));
  return _mm512_cvtss_f32(lanes);
}

// The four lanes of block j are the first two folds (+8, +4) of the j-th argument.
static inline __m512 fold_to_blocks(__m512 a, __m512 b, __m512 c, __m512 d) noexcept {
  const __m512 ab =
      _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  const __m512 cd =
      _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
  return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

// Lane i is fold(v[i]), by the same additions: 45 instructions instead of 16 * 8.
static inline __m512 fold_16(const __m512 (&v)[16]) noexcept {
  const __m512 b0 = fold_to_blocks(v[0], v[4], v[8], v[12]);
  const __m512 b1 = fold_to_blocks(v[1], v[5], v[9], v[13]);
  const __m512 b2 = fold_to_blocks(v[2], v[6], v[10], v[14]);
  const __m512 b3 = fold_to_blocks(v[3], v[7], v[11], v[15]);
  const __m512 b01 =
      _mm512_add_ps(_mm512_shuffle_ps(b0, b1, 0x44), _mm512_shuffle_ps(b0, b1, 0xee));
  const __m512 b23 =
      _mm512_add_ps(_mm512_shuffle_ps(b2, b3, 0x44), _mm512_shuffle_ps(b2, b3, 0xee));
  return _mm512_add_ps(_mm512_shuffle_ps(b01, b23, 0x88), _mm512_shuffle_ps(b01, b23, 0xdd));
}

// The largest lane (no NaN among them).
static inline float largest(__m512 lanes) noexcept {
  lanes = _mm512_max_ps(lanes, _mm512_shuffle_f32x4(lanes, lanes, 0x4e));
  lanes = _mm512_max_ps(lanes, _mm512_shuffle_f32x4(lanes, lanes, 0xb1));
  lanes = _mm512_max_ps(lanes, _mm512_permute_ps(lanes, 0x4e));
  lanes = _mm512_max_ps(lanes, _mm512_permute_ps(lanes, 0xb1));
  return _mm512_cvtss_f32(lanes);
}

// exp_f32 of scalar_math.h in every lane, operation by operation.
static inline __m512 exp_16(__m512 x) noexcept {
  constexpr float kC0 = kExpCoefficients[0], kC1 = kExpCoefficients[1], kC2 = kExpCoefficients[2];
  constexpr float kC3 = kExpCoefficients[3], kC4 = kExpCoefficients[4];
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(kExpInverseLn2)), 0x08);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-kExpLn2High), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(-kExpLn2Low), r);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(kC4), r, _mm512_set1_ps(kC3));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kC2));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kC1));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kC0));
  p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, r);
  const __m512i one_plus = _mm512_castps_si512(_mm512_add_ps(p, _mm512_set1_ps(1.0f)));
  const __m512i shift = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
  __m512 y = _mm512_castsi512_ps(_mm512_add_epi32(one_plus, shift));
  const __m512 infinity = _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000));
  const __mmask16 high = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpHigh), _CMP_GT_OQ);
  const __mmask16 low = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpLow), _CMP_LT_OQ);
  y = _mm512_mask_mov_ps(y, high, infinity);
  y = _mm512_mask_mov_ps(y, low, _mm512_setzero_ps());
  return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

}  // namespace crumb::kernels

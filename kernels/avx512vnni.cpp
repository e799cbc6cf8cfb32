// The table for CPUs with AVX-512 F, BW, VL, DQ and VNNI, and its functions on rows of floats.
// One zmm register is the 16 virtual lanes of backend.h, so vector code is the specification's
// order.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni.h"
#include "kernels/backend.h"
#include "kernels/unroll.h"

namespace crumb::kernels {

extern const Backend kAvx512Vnni;

namespace {

// kRows * kTokens dots at once, because one alone waits for its own additions. 1 x 1, 4 x 1 and
// 4 x 4 exist; 4 x 4 is also one transposing fold.
template <int kRows, int kTokens>
void dots(const float* w, const float* x, int64_t K, float* y, int64_t ldy) noexcept {
  __m512 sums[kRows * kTokens];
  unroll<kRows * kTokens>([&](int i) { sums[i] = _mm512_setzero_ps(); });
  for (int64_t k = 0; k < K; k += kZmmLanes) {
    const __mmask16 lanes = first_lanes(K - k);
    __m512 tokens[kTokens];
    unroll<kTokens>([&](int t) { tokens[t] = _mm512_maskz_loadu_ps(lanes, x + t * K + k); });
    unroll<kRows>([&](int n) {
      const __m512 row = _mm512_maskz_loadu_ps(lanes, w + n * K + k);
      unroll<kTokens>([&](int t) {
        __m512& sum = sums[t * kRows + n];
        sum = _mm512_mask3_fmadd_ps(row, tokens[t], sum, lanes);
      });
    });
  }
  if constexpr (kRows * kTokens == kZmmLanes) {
    const __m512 folded = fold_16(sums);
    _mm_storeu_ps(y, _mm512_castps512_ps128(folded));
    _mm_storeu_ps(y + ldy, _mm512_extractf32x4_ps(folded, 1));
    _mm_storeu_ps(y + 2 * ldy, _mm512_extractf32x4_ps(folded, 2));
    _mm_storeu_ps(y + 3 * ldy, _mm512_extractf32x4_ps(folded, 3));
  } else {
    for (int t = 0; t < kTokens; ++t) {
      for (int n = 0; n < kRows; ++n) y[t * ldy + n] = fold(sums[t * kRows + n]);
    }
  }
}

}  // namespace

void avx512vnni_matmul_f32(const float* w, int64_t K, const float* x, int64_t T, Range rows,
                           float* y, int64_t ldy) noexcept {
  int64_t n = rows.begin;
  for (; n + 4 <= rows.end; n += 4) {
    int64_t t = 0;
    for (; t + 4 <= T; t += 4) dots<4, 4>(w + n * K, x + t * K, K, y + t * ldy + n, ldy);
    for (; t < T; ++t) dots<4, 1>(w + n * K, x + t * K, K, y + t * ldy + n, ldy);
  }
  for (; n < rows.end; ++n) {
    for (int64_t t = 0; t < T; ++t) {
      dots<1, 1>(w + n * K, x + t * K, K, y + t * ldy + n, ldy);
    }
  }
}

namespace {

__m512 absolute(__m512 x) noexcept {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), magnitude));
}

int32_t sum_of(__m512i lanes) noexcept {
  lanes = _mm512_add_epi32(lanes, _mm512_shuffle_i32x4(lanes, lanes, 0x4e));
  lanes = _mm512_add_epi32(lanes, _mm512_shuffle_i32x4(lanes, lanes, 0xb1));
  lanes = _mm512_add_epi32(lanes, _mm512_shuffle_epi32(lanes, _MM_PERM_BADC));
  lanes = _mm512_add_epi32(lanes, _mm512_shuffle_epi32(lanes, _MM_PERM_CDAB));
  return _mm_cvtsi128_si32(_mm512_castsi512_si128(lanes));
}

// max |x|, NaN counting as more than infinity: the order of the bits as integers.
float absmax(const float* x, int64_t n) noexcept {
  __m512i m = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += kZmmLanes) {
    const __m512 v = _mm512_maskz_loadu_ps(first_lanes(n - i), x + i);
    m = _mm512_max_epi32(m, _mm512_castps_si512(absolute(v)));
  }
  m = _mm512_max_epi32(m, _mm512_shuffle_i32x4(m, m, 0x4e));
  m = _mm512_max_epi32(m, _mm512_shuffle_i32x4(m, m, 0xb1));
  m = _mm512_max_epi32(m, _mm512_shuffle_epi32(m, _MM_PERM_BADC));
  m = _mm512_max_epi32(m, _mm512_shuffle_epi32(m, _MM_PERM_CDAB));
  return _mm512_cvtss_f32(_mm512_castsi512_ps(m));
}

struct Quantized {
  float scale;
  int32_t sum;
};

// q = round-to-nearest-even(x * (127 / m)) in [-127, 127], NaN giving -127: max_ps and min_ps
// return their second operand if either is NaN, like the comparisons of scalar.cpp.
Quantized quantize_group(const float* x, int64_t n, int8_t* q) noexcept {
  constexpr float kFloor = 0x1p-100f;  // below it everything counts as 0, see scalar.cpp
  const float m = absmax(x, n);
  if (m < kFloor) {
    __builtin_memset(q, 0, static_cast<size_t>(n));
    return {0.0f, 0};
  }
  const __m512 inverse = _mm512_set1_ps(127.0f / m);
  const __m512 lowest = _mm512_set1_ps(-127.0f);
  const __m512 highest = _mm512_set1_ps(127.0f);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 r = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), inverse);
    const __m512i codes = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(r, lowest), highest));
    sum = _mm512_mask_add_epi32(sum, lanes, sum, codes);
    _mm_mask_storeu_epi8(q + i, lanes, _mm512_cvtepi32_epi8(codes));
  }
  return {m / 127.0f, sum_of(sum)};
}

}  // namespace

void avx512vnni_quantize_row(const float* x, int64_t K, int64_t group, int64_t stride, int8_t* q,
                             float* scales, int32_t* sums) noexcept {
  for (int64_t g = 0, first = 0; first < K; ++g, first += group) {
    const int64_t n = K - first < group ? K - first : group;
    const Quantized result = quantize_group(x + first, n, q + first);
    scales[g] = result.scale;
    sums[g] = result.sum;
  }
  __builtin_memset(q + K, 0, static_cast<size_t>(stride - K));
}

void avx512vnni_rmsnorm(const float* x, const float* weight, int64_t n, float eps,
                        float* y) noexcept {
  __m512 squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 v = _mm512_maskz_loadu_ps(lanes, x + i);
    squares = _mm512_mask3_fmadd_ps(v, v, squares, lanes);
  }
  const float mean = fold(squares) / static_cast<float>(n);
  const __m512 r = _mm512_set1_ps(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < n; i += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), r);
    const __m512 scaled = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(lanes, weight + i));
    _mm512_mask_storeu_ps(y + i, lanes, scaled);
  }
}

namespace {

// Eight pairs (a, b) a register: fmaddsub gives fma(a, cos, -(b * sin)) in the even lanes and
// fma(a, sin, b * cos) in the odd ones.
}  // namespace

void avx512vnni_rope(float* x, int64_t heads, int64_t Dh, const float* cos,
                     const float* sin) noexcept {
  const __m512i cos_first =
      _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i sin_first =
      _mm512_setr_epi32(16, 0, 17, 1, 18, 2, 19, 3, 20, 4, 21, 5, 22, 6, 23, 7);
  for (int64_t d = 0; d < Dh; d += kZmmLanes) {
    const __mmask16 lanes = first_lanes(Dh - d);
    const __mmask16 pairs = first_lanes(Dh / 2 - d / 2) & 0xff;
    const __m512 c = _mm512_maskz_loadu_ps(pairs, cos + d / 2);
    const __m512 s = _mm512_maskz_loadu_ps(pairs, sin + d / 2);
    const __m512 cos_sin = _mm512_permutex2var_ps(c, cos_first, s);
    const __m512 sin_cos = _mm512_permutex2var_ps(c, sin_first, s);
    for (int64_t h = 0; h < heads; ++h) {
      const __m512 v = _mm512_maskz_loadu_ps(lanes, x + h * Dh + d);
      const __m512 a = _mm512_moveldup_ps(v);
      const __m512 b = _mm512_movehdup_ps(v);
      const __m512 rotated = _mm512_fmaddsub_ps(a, cos_sin, _mm512_mul_ps(b, sin_cos));
      _mm512_mask_storeu_ps(x + h * Dh + d, lanes, rotated);
    }
  }
}

void avx512vnni_silu_mul(float* gate, const float* up, int64_t n) noexcept {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 sign = _mm512_set1_ps(-0.0f);
  for (int64_t i = 0; i < n; i += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 v = _mm512_maskz_loadu_ps(lanes, gate + i);
    const __m512 silu = _mm512_div_ps(v, _mm512_add_ps(one, exp_16(_mm512_xor_ps(v, sign))));
    const __m512 product = _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(lanes, up + i));
    _mm512_mask_storeu_ps(gate + i, lanes, product);
  }
}

void avx512vnni_gelu_mul(float* gate, const float* up, int64_t n) noexcept {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 sign = _mm512_set1_ps(-0.0f);
  for (int64_t i = 0; i < n; i += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 x = _mm512_maskz_loadu_ps(lanes, gate + i);
    const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    const __m512 inner = _mm512_add_ps(x, _mm512_mul_ps(_mm512_set1_ps(kGeluCube), cube));
    const __m512 t = _mm512_mul_ps(_mm512_set1_ps(kGeluTwice), inner);
    const __m512 gelu = _mm512_div_ps(x, _mm512_add_ps(one, exp_16(_mm512_xor_ps(t, sign))));
    const __m512 product = _mm512_mul_ps(gelu, _mm512_maskz_loadu_ps(lanes, up + i));
    _mm512_mask_storeu_ps(gate + i, lanes, product);
  }
}

namespace {

// Butterflies at a distance of 1 to 8: `other` is v with a and b exchanged, second_half the lanes
// that hold a b.
__m512 butterfly(__m512 v, __m512 other, __mmask16 second_half) noexcept {
  return _mm512_mask_sub_ps(_mm512_add_ps(v, other), second_half, other, v);
}

// Signs and the butterflies inside one register.
__m512 hadamard_16(const float* x, const float* signs) noexcept {
  __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x), _mm512_loadu_ps(signs));
  v = butterfly(v, _mm512_permute_ps(v, 0xb1), 0xaaaa);
  v = butterfly(v, _mm512_permute_ps(v, 0x4e), 0xcccc);
  v = butterfly(v, _mm512_shuffle_f32x4(v, v, 0xb1), 0xf0f0);
  return butterfly(v, _mm512_shuffle_f32x4(v, v, 0x4e), 0xff00);
}

// Butterflies at a distance of `half`, a multiple of 16, over one block; then everything * factor.
void butterflies(float* x, int64_t block, int64_t half, __m512 factor) noexcept {
  for (int64_t base = 0; base < block; base += 2 * half) {
    for (int64_t i = base; i < base + half; i += kZmmLanes) {
      const __m512 a = _mm512_loadu_ps(x + i);
      const __m512 b = _mm512_loadu_ps(x + i + half);
      _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_add_ps(a, b), factor));
      _mm512_storeu_ps(x + i + half, _mm512_mul_ps(_mm512_sub_ps(a, b), factor));
    }
  }
}

// The usual block, which fits four registers.
void hadamard_64(float* x, const float* signs, __m512 norm) noexcept {
  __m512 v[4], w[4];
  unroll<4>([&](int i) { v[i] = hadamard_16(x + i * kZmmLanes, signs + i * kZmmLanes); });
  unroll<2>([&](int i) {
    w[2 * i] = _mm512_add_ps(v[2 * i], v[2 * i + 1]);
    w[2 * i + 1] = _mm512_sub_ps(v[2 * i], v[2 * i + 1]);
  });
  unroll<2>([&](int i) {
    _mm512_storeu_ps(x + i * kZmmLanes, _mm512_mul_ps(_mm512_add_ps(w[i], w[i + 2]), norm));
    _mm512_storeu_ps(x + (i + 2) * kZmmLanes, _mm512_mul_ps(_mm512_sub_ps(w[i], w[i + 2]), norm));
  });
}

}  // namespace

void avx512vnni_hadamard(float* x, const float* signs, int64_t K, int64_t block) noexcept {
  // Blocks are 32 or longer, so there is a last stage to carry the norm; a factor of 1 is exact.
  const __m512 norm = _mm512_set1_ps(1.0f / __builtin_sqrtf(static_cast<float>(block)));
  const __m512 one = _mm512_set1_ps(1.0f);
  if (block == 64) {
    for (int64_t i = 0; i < K; i += 64) hadamard_64(x + i, signs + i, norm);
    return;
  }
  for (int64_t i = 0; i < K; i += kZmmLanes) _mm512_storeu_ps(x + i, hadamard_16(x + i, signs + i));
  for (int64_t start = 0; start < K; start += block) {
    for (int64_t half = kZmmLanes; half < block; half *= 2) {
      butterflies(x + start, block, half, 2 * half == block ? norm : one);
    }
  }
}

void avx512vnni_to_f16(const float* x, int64_t n, uint16_t* y) noexcept {
  for (int64_t i = 0; i < n; i += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 v = _mm512_maskz_loadu_ps(lanes, x + i);
    _mm256_mask_storeu_epi16(y + i, lanes,
                             _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
}

float avx512vnni_to_i8(const float* x, int64_t n, int8_t* y) noexcept {
  return quantize_group(x, n, y).scale;
}

namespace {

// The maximum first, then the first place where it stands: both at the speed of the memory.
}  // namespace

int64_t avx512vnni_argmax(const float* x, int64_t n) noexcept {
  const __m512 lowest = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int32_t>(0xff800000u)));
  __m512 m = lowest;
  __m512 m2 = lowest;
  for (int64_t i = 0; i < n; i += 2 * kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __mmask16 lanes2 = first_lanes(n - i - kZmmLanes);
    m = _mm512_mask_max_ps(m, lanes, _mm512_maskz_loadu_ps(lanes, x + i), m);  // v > m ? v : m
    m2 = _mm512_mask_max_ps(m2, lanes2, _mm512_maskz_loadu_ps(lanes2, x + i + kZmmLanes), m2);
  }
  const __m512 all = _mm512_set1_ps(largest(_mm512_max_ps(m, m2)));
  for (int64_t i = 0; i < n; i += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - i);
    const __m512 v = _mm512_maskz_loadu_ps(lanes, x + i);
    const unsigned equal = _mm512_cmp_ps_mask(v, all, _CMP_EQ_OQ) & lanes;
    if (equal != 0) return i + __builtin_ctz(equal);
  }
  return 0;
}

constinit const Backend kAvx512Vnni = {
    "avx512vnni",        avx512vnni_matmul, avx512vnni_matmul_f32, avx512vnni_quantize_row,
    avx512vnni_rmsnorm,  avx512vnni_rope,   avx512vnni_silu_mul,   avx512vnni_gelu_mul,
    avx512vnni_hadamard, avx512vnni_attend, avx512vnni_to_f16,     avx512vnni_to_i8,
    avx512vnni_argmax};

}  // namespace crumb::kernels

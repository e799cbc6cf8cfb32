// The avx2 backend: everything but packed matmul. Same bits as scalar.cpp, whose comments hold the
// formulas; here is only how eight values go at once. Two registers are the 16 virtual lanes.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx2.h"
#include "kernels/backend.h"
#include "kernels/unroll.h"

namespace crumb::kernels {

extern const Backend kAvx2;

namespace avx2 {
namespace {

constexpr float kQuantizeFloor = 0x1p-100f;

// The folds of four reductions, their additions in the same order as fold()'s.
[[gnu::always_inline]] inline __m128 fold_4(const Lanes (&lanes)[4]) {
  const __m128 a = fold_to_4(lanes[0]);
  const __m128 b = fold_to_4(lanes[1]);
  const __m128 c = fold_to_4(lanes[2]);
  const __m128 d = fold_to_4(lanes[3]);
  const __m128 ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
  const __m128 cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
  return _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd));
}

// lanes[r] += products of a [n] and row r of b, rows `step` values apart. A tail below 16 goes
// through memory: adding zeros in its place could turn a lane's -0 into +0.
template <class Read, int rows>
[[gnu::always_inline]] inline void add_products(const float* a, const typename Read::Value* b,
                                                int64_t step, int64_t n, Lanes (&lanes)[rows]) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m256 low = _mm256_loadu_ps(a + i);
    const __m256 high = _mm256_loadu_ps(a + i + 8);
    for (int r = 0; r < rows; ++r) {
      const typename Read::Value* p = b + r * step + i;
      lanes[r].low = _mm256_fmadd_ps(low, Read::eight(p), lanes[r].low);
      lanes[r].high = _mm256_fmadd_ps(high, Read::eight(p + 8), lanes[r].high);
    }
  }
  if (i == n) return;
  for (int r = 0; r < rows; ++r) {
    alignas(32) float values[16];
    _mm256_store_ps(values, lanes[r].low);
    _mm256_store_ps(values + 8, lanes[r].high);
    for (int64_t j = 0; i + j < n; ++j) {
      values[j] = __builtin_fmaf(a[i + j], Read::one(b + r * step + i + j), values[j]);
    }
    lanes[r].low = _mm256_load_ps(values);
    lanes[r].high = _mm256_load_ps(values + 8);
  }
}

template <class Read>
float dot(const float* a, const typename Read::Value* b, int64_t n) {
  Lanes lanes[1];
  add_products<Read>(a, b, 0, n, lanes);
  return fold(lanes[0]);
}

// out[0..3] = dot(a, row r of b).
template <class Read>
void dot_4(const float* a, const typename Read::Value* b, int64_t step, int64_t n, float* out) {
  Lanes lanes[4];
  add_products<Read>(a, b, step, n, lanes);
  _mm_storeu_ps(out, fold_4(lanes));
}

[[gnu::always_inline]] inline __m256i abs_bits(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

float absmax(const float* x, int64_t n) {
  __m256i m = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) m = _mm256_max_epi32(m, abs_bits(_mm256_loadu_ps(x + i)));
  if (i < n) m = _mm256_max_epi32(m, abs_bits(_mm256_maskload_ps(x + i, first_lanes(n - i))));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

// 8 values of q as int32; max and min return their second operand for NaN.
[[gnu::always_inline]] inline __m256i quantize8(__m256 x, __m256 inverse) {
  const __m256 low = _mm256_max_ps(_mm256_mul_ps(x, inverse), _mm256_set1_ps(-127.0f));
  return _mm256_cvtps_epi32(_mm256_min_ps(low, _mm256_set1_ps(127.0f)));
}

[[gnu::always_inline]] inline int32_t sum8(__m256i v) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtsi128_si32(four);
}

// q [n] of one group; its scale and the sum of q.
float quantize_group(const float* x, int64_t n, int8_t* q, int32_t* sum) {
  const float m = absmax(x, n);
  *sum = 0;
  if (m < kQuantizeFloor) {
    for (int64_t i = 0; i < n; ++i) q[i] = 0;
    return 0.0f;
  }
  const __m256 inverse = _mm256_set1_ps(127.0f / m);
  __m256i sums = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i v = quantize8(_mm256_loadu_ps(x + i), inverse);
    sums = _mm256_add_epi32(sums, v);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(q + i), _mm_packs_epi16(words, words));
  }
  *sum = sum8(sums);
  for (; i < n; ++i) {
    const int32_t v = _mm256_cvtsi256_si32(quantize8(_mm256_broadcast_ss(x + i), inverse));
    q[i] = static_cast<int8_t>(v);
    *sum += v;
  }
  return m / 127.0f;
}

// Four pairs at once: even lanes become fma(a, cos, -(b * sin)), odd ones fma(a, sin, b * cos).
[[gnu::always_inline]] inline __m256 rotate(__m256 x, __m128 cos, __m128 sin) {
  const __m256 cos_sin = _mm256_set_m128(_mm_unpackhi_ps(cos, sin), _mm_unpacklo_ps(cos, sin));
  const __m256 sin_cos = _mm256_permute_ps(cos_sin, 0xb1);
  const __m256 minus_even = _mm256_setr_ps(-0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f);
  const __m256 b = _mm256_xor_ps(_mm256_mul_ps(_mm256_movehdup_ps(x), sin_cos), minus_even);
  return _mm256_fmadd_ps(_mm256_moveldup_ps(x), cos_sin, b);
}

[[gnu::always_inline]] inline __m256 silu8(__m256 gate, __m256 up) {
  const __m256 below = _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(negate(gate)));
  return _mm256_mul_ps(_mm256_div_ps(gate, below), up);
}

[[gnu::always_inline]] inline __m256 gelu8(__m256 x, __m256 up) {
  const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
  const __m256 inner = _mm256_add_ps(x, _mm256_mul_ps(_mm256_set1_ps(kGeluCube), cube));
  const __m256 t = _mm256_mul_ps(_mm256_set1_ps(kGeluTwice), inner);
  const __m256 below = _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(negate(t)));
  return _mm256_mul_ps(_mm256_div_ps(x, below), up);
}

// (a, b) -> (a + b, a - b) for a in the lanes where minus is +0 and b where it is -0; `other` is x
// with the partners exchanged.
[[gnu::always_inline]] inline __m256 butterfly(__m256 x, __m256 other, __m256 minus) {
  return _mm256_add_ps(_mm256_xor_ps(x, minus), other);
}

// Distances 1, 2 and 4 inside a register.
[[gnu::always_inline]] inline __m256 hadamard8(__m256 x) {
  const float m = -0.0f;
  x = butterfly(x, _mm256_permute_ps(x, 0xb1), _mm256_setr_ps(0, m, 0, m, 0, m, 0, m));
  x = butterfly(x, _mm256_permute_ps(x, 0x4e), _mm256_setr_ps(0, 0, m, m, 0, 0, m, m));
  return butterfly(x, _mm256_permute2f128_ps(x, x, 1), _mm256_setr_ps(0, 0, 0, 0, m, m, m, m));
}

[[gnu::always_inline]] inline __m256 signed_hadamard8(const float* x, const float* signs) {
  return hadamard8(_mm256_mul_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(signs)));
}

// The usual block, which fits eight registers.
void hadamard_64(float* x, const float* signs, __m256 norm) {
  __m256 v[8], w[8];
  unroll<8>([&](int i) { v[i] = signed_hadamard8(x + 8 * i, signs + 8 * i); });
  unroll<4>([&](int i) {
    w[2 * i] = _mm256_add_ps(v[2 * i], v[2 * i + 1]);
    w[2 * i + 1] = _mm256_sub_ps(v[2 * i], v[2 * i + 1]);
  });
  unroll<4>([&](int i) {
    const int a = i / 2 * 4 + i % 2;
    v[a] = _mm256_add_ps(w[a], w[a + 2]);
    v[a + 2] = _mm256_sub_ps(w[a], w[a + 2]);
  });
  unroll<4>([&](int i) {
    _mm256_storeu_ps(x + 8 * i, _mm256_mul_ps(_mm256_add_ps(v[i], v[i + 4]), norm));
    _mm256_storeu_ps(x + 8 * (i + 4), _mm256_mul_ps(_mm256_sub_ps(v[i], v[i + 4]), norm));
  });
}

}  // namespace

void matmul_f32(const float* w, int64_t K, const float* x, int64_t T, Range rows, float* y,
                int64_t ldy) noexcept {
  int64_t n = rows.begin;
  for (; n + 4 <= rows.end; n += 4) {
    for (int64_t t = 0; t < T; ++t) dot_4<ReadF32>(x + t * K, w + n * K, K, K, y + t * ldy + n);
  }
  for (; n < rows.end; ++n) {
    for (int64_t t = 0; t < T; ++t) y[t * ldy + n] = dot<ReadF32>(x + t * K, w + n * K, K);
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
  const float squares = dot<ReadF32>(x, x, n);
  const float r = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps);
  const __m256 factor = _mm256_set1_ps(r);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), factor);
    _mm256_storeu_ps(y + i, _mm256_mul_ps(v, _mm256_loadu_ps(weight + i)));
  }
  for (; i < n; ++i) y[i] = (x[i] * r) * weight[i];
}

void rope(float* x, int64_t heads, int64_t Dh, const float* cos, const float* sin) noexcept {
  for (int64_t h = 0; h < heads; ++h, x += Dh) {
    int64_t i = 0;
    for (; i + 4 <= Dh / 2; i += 4) {
      const __m256 v =
          rotate(_mm256_loadu_ps(x + 2 * i), _mm_loadu_ps(cos + i), _mm_loadu_ps(sin + i));
      _mm256_storeu_ps(x + 2 * i, v);
    }
    for (; i < Dh / 2; ++i) {
      const float a = x[2 * i];
      const float b = x[2 * i + 1];
      x[2 * i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
      x[2 * i + 1] = __builtin_fmaf(a, sin[i], b * cos[i]);
    }
  }
}

void silu_mul(float* gate, const float* up, int64_t n) noexcept {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(gate + i, silu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
  }
  if (i == n) return;
  const __m256i mask = first_lanes(n - i);
  const __m256 v = silu8(_mm256_maskload_ps(gate + i, mask), _mm256_maskload_ps(up + i, mask));
  _mm256_maskstore_ps(gate + i, mask, v);
}

void gelu_mul(float* gate, const float* up, int64_t n) noexcept {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(gate + i, gelu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
  }
  if (i == n) return;
  const __m256i mask = first_lanes(n - i);
  const __m256 v = gelu8(_mm256_maskload_ps(gate + i, mask), _mm256_maskload_ps(up + i, mask));
  _mm256_maskstore_ps(gate + i, mask, v);
}

void hadamard(float* x, const float* signs, int64_t K, int64_t block) noexcept {
  const __m256 norm = _mm256_set1_ps(1.0f / __builtin_sqrtf(static_cast<float>(block)));
  if (block == 64) {
    for (int64_t i = 0; i < K; i += 64) hadamard_64(x + i, signs + i, norm);
    return;
  }
  for (int64_t first = 0; first < K; first += block, x += block, signs += block) {
    for (int64_t i = 0; i < block; i += 8) {
      _mm256_storeu_ps(x + i, signed_hadamard8(x + i, signs + i));
    }
    for (int64_t h = 8; h < block; h *= 2) {
      const __m256 factor = 2 * h == block ? norm : _mm256_set1_ps(1.0f);
      for (int64_t i = 0; i < block; i += 8) {
        if ((i & h) != 0) continue;
        const __m256 a = _mm256_loadu_ps(x + i);
        const __m256 b = _mm256_loadu_ps(x + i + h);
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_add_ps(a, b), factor));
        _mm256_storeu_ps(x + i + h, _mm256_mul_ps(_mm256_sub_ps(a, b), factor));
      }
    }
  }
}

void to_f16(const float* x, int64_t n, uint16_t* y) noexcept {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i v = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), v);
  }
  for (; i < n; ++i) {
    const __m128i v = _mm_cvtps_ph(_mm_load_ss(x + i), _MM_FROUND_TO_NEAREST_INT);
    y[i] = static_cast<uint16_t>(_mm_cvtsi128_si32(v));
  }
}

float to_i8(const float* x, int64_t n, int8_t* y) noexcept {
  int32_t sum = 0;
  return quantize_group(x, n, y, &sum);
}

int64_t argmax(const float* x, int64_t n) noexcept {
  __m256 m8 = _mm256_set1_ps(-kInfinity);
  int64_t i = 0;
  // max returns its second operand for NaN: a NaN in x never gets in.
  for (; i + 8 <= n; i += 8) m8 = _mm256_max_ps(_mm256_loadu_ps(x + i), m8);
  __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  float m = _mm_cvtss_f32(_mm_max_ss(m4, _mm_movehdup_ps(m4)));
  for (; i < n; ++i) m = x[i] > m ? x[i] : m;
  for (i = 0; i + 8 <= n; i += 8) {
    const __m256 equal = _mm256_cmp_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(m), _CMP_EQ_OQ);
    const int bits = _mm256_movemask_ps(equal);
    if (bits != 0) return i + __builtin_ctz(static_cast<unsigned>(bits));
  }
  for (; i < n; ++i) {
    if (x[i] == m) return i;
  }
  return 0;
}

}  // namespace avx2

const Backend kAvx2 = {"avx2",         avx2::matmul, avx2::matmul_f32, avx2::quantize_row,
                       avx2::rmsnorm,  avx2::rope,   avx2::silu_mul,   avx2::gelu_mul,
                       avx2::hadamard, avx2::attend, avx2::to_f16,     avx2::to_i8,
                       avx2::argmax};

}  // namespace crumb::kernels

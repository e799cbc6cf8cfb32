// Attention of one query head. 16 keys at a time, each with an accumulator of 16 lanes, so that the
// 16 folds become one transposing fold; then the softmax; then the values, with the output's
// columns held in registers while the positions go by.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni.h"
#include "kernels/backend.h"

namespace crumb::kernels {
namespace {

// Elements i to i + 15 of cached keys or values, without their scale; lanes outside `lanes` are 0
// and are not read.
template <KvType kType>
[[gnu::always_inline]] inline __m512 load_16(const void* data, int64_t i,
                                             __mmask16 lanes) noexcept {
  if constexpr (kType == KvType::kF32) {
    return _mm512_maskz_loadu_ps(lanes, static_cast<const float*>(data) + i);
  } else if constexpr (kType == KvType::kF16) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, static_cast<const uint16_t*>(data) + i));
  } else {
    const __m128i bytes = _mm_maskz_loadu_epi8(lanes, static_cast<const int8_t*>(data) + i);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
}

// Lane j is dot(q, key p + j). Past the last key it is that key's again, so that nothing is read
// beyond the cache.
template <KvType kType>
[[gnu::always_inline]] inline __m512 dots_16(const float* q, const void* k, int64_t p, int64_t n,
                                             int64_t Dh) noexcept {
  int64_t row[kZmmLanes];
  for (int64_t j = 0; j < kZmmLanes; ++j) row[j] = (p + j < n ? p + j : n - 1) * Dh;
  __m512 sums[kZmmLanes];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t d = 0; d < Dh; d += kZmmLanes) {
    const __mmask16 lanes = first_lanes(Dh - d);
    const __m512 query = _mm512_maskz_loadu_ps(lanes, q + d);
    for (int64_t j = 0; j < kZmmLanes; ++j) {
      sums[j] = _mm512_mask3_fmadd_ps(query, load_16<kType>(k, row[j] + d, lanes), sums[j], lanes);
    }
  }
  return fold_16(sums);
}

// scores[p] = dot(q, k_p) [* k_scale_p] * scale; returns their maximum, which no NaN takes part in.
template <KvType kType>
float score(const float* q, const KvHead& kv, int64_t n, int64_t Dh, float scale,
            float* scores) noexcept {
  __m512 m = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int32_t>(0xff800000u)));
  for (int64_t p = 0; p < n; p += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - p);
    __m512 s = dots_16<kType>(q, kv.k, p, n, Dh);
    if constexpr (kType == KvType::kI8) {
      s = _mm512_mul_ps(s, _mm512_maskz_loadu_ps(lanes, kv.k_scale + p));
    }
    s = _mm512_mul_ps(s, _mm512_set1_ps(scale));
    _mm512_mask_storeu_ps(scores + p, lanes, s);
    m = _mm512_mask_max_ps(m, lanes, s, m);  // s > m ? s : m
  }
  return largest(m);
}

// scores[p] = exp(scores[p] - m) [* v_scale_p]; returns the sum without v_scale.
template <KvType kType>
float weigh(const KvHead& kv, int64_t n, float m, float* scores) noexcept {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t p = 0; p < n; p += kZmmLanes) {
    const __mmask16 lanes = first_lanes(n - p);
    __m512 e = exp_16(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, scores + p), _mm512_set1_ps(m)));
    sum = _mm512_mask_add_ps(sum, lanes, sum, e);
    if constexpr (kType == KvType::kI8) {
      e = _mm512_mul_ps(e, _mm512_maskz_loadu_ps(lanes, kv.v_scale + p));
    }
    _mm512_mask_storeu_ps(scores + p, lanes, e);
  }
  return fold(sum);
}

// out[d] = (sum_p weights[p] * v[p, d]) / sum for kRegisters * 16 columns from d on, the last 16 of
// them only where `lanes` says.
template <KvType kType, int kRegisters>
void average(const float* weights, const KvHead& kv, int64_t n, int64_t Dh, int64_t d,
             __mmask16 lanes, float sum, float* out) noexcept {
  __m512 sums[kRegisters];
  for (__m512& s : sums) s = _mm512_setzero_ps();
  for (int64_t p = 0; p < n; ++p) {
    const __m512 weight = _mm512_set1_ps(weights[p]);
    for (int i = 0; i < kRegisters; ++i) {
      const __mmask16 read = i + 1 < kRegisters ? __mmask16{0xffff} : lanes;
      const __m512 v = load_16<kType>(kv.v, p * Dh + d + i * kZmmLanes, read);
      sums[i] = _mm512_fmadd_ps(weight, v, sums[i]);
    }
  }
  for (int i = 0; i < kRegisters; ++i) {
    const __mmask16 write = i + 1 < kRegisters ? __mmask16{0xffff} : lanes;
    _mm512_mask_storeu_ps(out + d + i * kZmmLanes, write,
                          _mm512_div_ps(sums[i], _mm512_set1_ps(sum)));
  }
}

template <KvType kType>
void attend_typed(const float* q, const KvHead& kv, int64_t n, int64_t Dh, float scale,
                  float* scores, float* out) noexcept {
  const float m = score<kType>(q, kv, n, Dh, scale, scores);
  const float sum = weigh<kType>(kv, n, m, scores);
  int64_t d = 0;
  for (; d + 8 * kZmmLanes <= Dh; d += 8 * kZmmLanes) {
    average<kType, 8>(scores, kv, n, Dh, d, 0xffff, sum, out);
  }
  for (; d + 4 * kZmmLanes <= Dh; d += 4 * kZmmLanes) {
    average<kType, 4>(scores, kv, n, Dh, d, 0xffff, sum, out);
  }
  for (; d < Dh; d += kZmmLanes) {
    average<kType, 1>(scores, kv, n, Dh, d, first_lanes(Dh - d), sum, out);
  }
}

}  // namespace

void avx512vnni_attend(const float* q, const KvHead& kv, int64_t n, int64_t Dh, float scale,
                       float* scores, float* out) noexcept {
  if (kv.type == KvType::kF32) return attend_typed<KvType::kF32>(q, kv, n, Dh, scale, scores, out);
  if (kv.type == KvType::kF16) return attend_typed<KvType::kF16>(q, kv, n, Dh, scale, scores, out);
  attend_typed<KvType::kI8>(q, kv, n, Dh, scale, scores, out);
}

}  // namespace crumb::kernels

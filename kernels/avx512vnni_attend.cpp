// Attention of a block of queries over one chunk. In a tile of keys a lane is a position, so that
// scores need no fold; every key and value is converted once for up to 6 queries, whose sums stay
// in registers.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni.h"
#include "kernels/backend.h"
#include "kernels/unroll.h"

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

// scores[r][p] = dot(q_r, k_p) [* k_scale_p] * scale for kTiles tiles from `tile` on.
template <KvType kType, int kRows, int kTiles>
void score_tiles(const AttendRow* rows, const KvHead& kv, int64_t tile, int64_t n, int64_t Dh,
                 float scale, float* scores) noexcept {
  __m512 s[kRows][kTiles];
  unroll<kRows * kTiles>([&](int i) { s[i / kTiles][i % kTiles] = _mm512_setzero_ps(); });
  for (int64_t d = 0; d < Dh; ++d) {
    unroll<kTiles>([&](int j) {
      const __m512 k = load_16<kType>(kv.k, ((tile + j) * Dh + d) * kKeyTile, 0xffff);
      unroll<kRows>(
          [&](int r) { s[r][j] = _mm512_fmadd_ps(_mm512_set1_ps(rows[r].q[d]), k, s[r][j]); });
    });
  }
  unroll<kTiles>([&](int j) {
    const int64_t p = (tile + j) * kKeyTile;
    __m512 k_scale = _mm512_set1_ps(1.0f);
    if constexpr (kType == KvType::kI8) {
      k_scale = _mm512_maskz_loadu_ps(first_lanes(n - p), kv.k_scale + p);
    }
    unroll<kRows>([&](int r) {
      const __m512 scaled = _mm512_mul_ps(s[r][j], k_scale);
      _mm512_store_ps(scores + r * kAttendChunk + p, _mm512_mul_ps(scaled, _mm512_set1_ps(scale)));
    });
  });
}

// scores[p] = exp(scores[p] - max) [* v_scale_p] for p < row.n.
template <KvType kType>
void weigh(AttendRow& row, const KvHead& kv, float* scores) noexcept {
  for (int64_t p = 0; p < row.first; ++p) scores[p] = -__builtin_inff();
  __m512 m = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int32_t>(0xff800000u)));
  for (int64_t p = 0; p < row.n; p += kZmmLanes) {
    const __mmask16 lanes = first_lanes(row.n - p);
    m = _mm512_mask_max_ps(m, lanes, _mm512_load_ps(scores + p), m);  // s > m ? s : m
  }
  row.max = largest(m);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t p = 0; p < row.n; p += kZmmLanes) {
    const __mmask16 lanes = first_lanes(row.n - p);
    __m512 e = exp_16(_mm512_sub_ps(_mm512_load_ps(scores + p), _mm512_set1_ps(row.max)));
    sum = _mm512_mask_add_ps(sum, lanes, sum, e);
    if constexpr (kType == KvType::kI8) {
      e = _mm512_mul_ps(e, _mm512_maskz_loadu_ps(lanes, kv.v_scale + p));
    }
    _mm512_store_ps(scores + p, e);
  }
  row.sum = fold(sum);
}

// out_r[d] += sum of weights[r][p] * v[p, d] over positions [from, to), for kRegisters * 16 columns
// from d on, the last 16 of them only where `lanes` says. From position 0 on, `out` starts at 0.
template <KvType kType, int kRows, int kRegisters>
void add_values(const AttendRow* rows, const KvHead& kv, const float* weights, int64_t from,
                int64_t to, int64_t Dh, int64_t d, __mmask16 lanes) noexcept {
  __m512 sums[kRows][kRegisters];
  const auto mask = [lanes](int i) { return i + 1 < kRegisters ? __mmask16{0xffff} : lanes; };
  unroll<kRows * kRegisters>([&](int j) {
    const int r = j / kRegisters, i = j % kRegisters;
    sums[r][i] = from == 0 ? _mm512_setzero_ps()
                           : _mm512_maskz_loadu_ps(mask(i), rows[r].out + d + i * kZmmLanes);
  });
  for (int64_t p = from; p < to; ++p) {
    __m512 v[kRegisters];
    unroll<kRegisters>(
        [&](int i) { v[i] = load_16<kType>(kv.v, p * Dh + d + i * kZmmLanes, mask(i)); });
    unroll<kRows>([&](int r) {
      const __m512 weight = _mm512_set1_ps(weights[r * kAttendChunk + p]);
      unroll<kRegisters>([&](int i) { sums[r][i] = _mm512_fmadd_ps(weight, v[i], sums[r][i]); });
    });
  }
  unroll<kRows * kRegisters>([&](int j) {
    const int r = j / kRegisters, i = j % kRegisters;
    _mm512_mask_storeu_ps(rows[r].out + d + i * kZmmLanes, mask(i), sums[r][i]);
  });
}

template <KvType kType, int kRows>
void add_columns(const AttendRow* rows, const KvHead& kv, const float* weights, int64_t from,
                 int64_t to, int64_t Dh) noexcept {
  int64_t d = 0;
  for (; d + 4 * kZmmLanes <= Dh; d += 4 * kZmmLanes) {
    add_values<kType, kRows, 4>(rows, kv, weights, from, to, Dh, d, 0xffff);
  }
  for (; d < Dh; d += kZmmLanes) {
    add_values<kType, kRows, 1>(rows, kv, weights, from, to, Dh, d, first_lanes(Dh - d));
  }
}

template <KvType kType, int kRows>
void attend_block(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows,
                  float* scores) noexcept {
  int64_t most = rows[0].n, least = rows[0].n;
  for (int r = 1; r < kRows; ++r) {
    most = rows[r].n > most ? rows[r].n : most;
    least = rows[r].n < least ? rows[r].n : least;
  }
  constexpr int kTiles = kRows == 1 ? 8 : 12 / kRows;  // enough sums to hide the latency
  const int64_t tiles = (most + kKeyTile - 1) / kKeyTile;
  int64_t tile = 0;
  for (; tile + kTiles <= tiles; tile += kTiles) {
    score_tiles<kType, kRows, kTiles>(rows, kv, tile, most, Dh, scale, scores);
  }
  for (; tile < tiles; ++tile) {
    score_tiles<kType, kRows, 1>(rows, kv, tile, most, Dh, scale, scores);
  }
  for (int r = 0; r < kRows; ++r) weigh<kType>(rows[r], kv, scores + r * kAttendChunk);
  add_columns<kType, kRows>(rows, kv, scores, 0, least, Dh);
  for (int r = 0; r < kRows; ++r) {
    if (rows[r].n == least) continue;
    add_columns<kType, 1>(rows + r, kv, scores + r * kAttendChunk, least, rows[r].n, Dh);
  }
}

template <KvType kType>
void attend_typed(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, int64_t count,
                  float* scores) noexcept {
  int64_t r = 0;
  for (; r + 6 <= count; r += 6) attend_block<kType, 6>(kv, Dh, scale, rows + r, scores);
  for (; r + 3 <= count; r += 3) attend_block<kType, 3>(kv, Dh, scale, rows + r, scores);
  for (; r < count; ++r) attend_block<kType, 1>(kv, Dh, scale, rows + r, scores);
}

}  // namespace

void avx512vnni_attend(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, int64_t count,
                       float* scores) noexcept {
  if (kv.type == KvType::kF32)
    return attend_typed<KvType::kF32>(kv, Dh, scale, rows, count, scores);
  if (kv.type == KvType::kF16)
    return attend_typed<KvType::kF16>(kv, Dh, scale, rows, count, scores);
  attend_typed<KvType::kI8>(kv, Dh, scale, rows, count, scores);
}

}  // namespace crumb::kernels

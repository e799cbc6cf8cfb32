// Attention of a block of queries over one chunk. In a tile of keys a lane is a position, so that
// scores need no fold; every key and value is converted once for up to 6 queries, whose sums stay
// in registers.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx2.h"
#include "kernels/backend.h"
#include "kernels/unroll.h"

namespace crumb::kernels::avx2 {
namespace {

// The first n of 8 floats, 0 in the other lanes.
[[gnu::always_inline]] inline __m256 load_first(const float* p, int64_t n) {
  return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(n));
}

// scores[r][p] = dot(q_r, k_p) [* k_scale_p] * scale for kTiles tiles from `tile` on.
template <class Read, int kRows, int kTiles>
void score_tiles(const AttendRow* rows, const KvHead& kv, int64_t tile, int64_t n, int64_t Dh,
                 float scale, float* scores) {
  constexpr int kVectors = 2 * kTiles;
  const auto* k = static_cast<const typename Read::Value*>(kv.k) + tile * Dh * kKeyTile;
  __m256 s[kRows][kVectors];
  unroll<kRows * kVectors>([&](int i) { s[i / kVectors][i % kVectors] = _mm256_setzero_ps(); });
  for (int64_t d = 0; d < Dh; ++d, k += kKeyTile) {
    // The fewer of the two stay in registers: 12 sums leave room for 4 more.
    if constexpr (kRows < kVectors) {
      __m256 q[kRows];
      unroll<kRows>([&](int r) { q[r] = _mm256_broadcast_ss(rows[r].q + d); });
      unroll<kVectors>([&](int j) {
        const __m256 key = Read::eight(k + (j / 2 * Dh) * kKeyTile + j % 2 * 8);
        unroll<kRows>([&](int r) { s[r][j] = _mm256_fmadd_ps(q[r], key, s[r][j]); });
      });
    } else {
      __m256 key[kVectors];
      unroll<kVectors>(
          [&](int j) { key[j] = Read::eight(k + (j / 2 * Dh) * kKeyTile + j % 2 * 8); });
      unroll<kRows>([&](int r) {
        const __m256 q = _mm256_broadcast_ss(rows[r].q + d);
        unroll<kVectors>([&](int j) { s[r][j] = _mm256_fmadd_ps(q, key[j], s[r][j]); });
      });
    }
  }
  unroll<kVectors>([&](int j) {
    const int64_t p = tile * kKeyTile + 8 * j;
    __m256 k_scale = _mm256_set1_ps(1.0f);
    if (kv.type == KvType::kI8) k_scale = load_first(kv.k_scale + p, n - p);
    unroll<kRows>([&](int r) {
      const __m256 scaled = _mm256_mul_ps(s[r][j], k_scale);
      _mm256_store_ps(scores + r * kAttendChunk + p, _mm256_mul_ps(scaled, _mm256_set1_ps(scale)));
    });
  });
}

float largest_score(const float* scores, int64_t n) {
  __m256 m = _mm256_set1_ps(-kInfinity);
  int64_t p = 0;
  for (; p + 8 <= n; p += 8) m = _mm256_max_ps(_mm256_load_ps(scores + p), m);  // s > m ? s : m
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, m);
  for (; p < n; ++p) lanes[0] = scores[p] > lanes[0] ? scores[p] : lanes[0];
  for (int i = 1; i < 8; ++i) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
  return lanes[0];
}

// scores[p] = exp(scores[p] - max) [* v_scale_p] for p < row.n.
void weigh(AttendRow& row, const KvHead& kv, float* scores) {
  for (int64_t p = 0; p < row.first; ++p) scores[p] = -kInfinity;
  row.max = largest_score(scores, row.n);
  const __m256 top = _mm256_set1_ps(row.max);
  Lanes lanes;
  for (int64_t p = 0; p < row.n; p += 8) {
    const int64_t left = row.n - p;
    __m256 e = exp8(_mm256_sub_ps(_mm256_load_ps(scores + p), top));
    // exp is never -0, so adding zeros changes no lane.
    if (left < 8) e = _mm256_and_ps(e, _mm256_castsi256_ps(first_lanes(left)));
    __m256& half = p % 16 == 0 ? lanes.low : lanes.high;
    half = _mm256_add_ps(half, e);
    if (kv.type == KvType::kI8) e = _mm256_mul_ps(e, load_first(kv.v_scale + p, left));
    _mm256_store_ps(scores + p, e);
  }
  row.sum = fold(lanes);
}

// out_r[d] += sum of weights[r][p] * v[p, d] over positions [from, to), for kVectors * 8 columns at
// d. From position 0 on, `out` starts at 0.
template <class Read, int kRows, int kVectors>
void add_values(const AttendRow* rows, const KvHead& kv, const float* weights, int64_t from,
                int64_t to, int64_t Dh, int64_t d) {
  __m256 sums[kRows][kVectors];
  unroll<kRows * kVectors>([&](int i) {
    const int r = i / kVectors, j = i % kVectors;
    sums[r][j] = from == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(rows[r].out + d + 8 * j);
  });
  const auto* v = static_cast<const typename Read::Value*>(kv.v) + from * Dh + d;
  for (int64_t p = from; p < to; ++p, v += Dh) {
    if constexpr (kRows < kVectors) {
      __m256 weight[kRows];
      unroll<kRows>(
          [&](int r) { weight[r] = _mm256_broadcast_ss(weights + r * kAttendChunk + p); });
      unroll<kVectors>([&](int j) {
        const __m256 value = Read::eight(v + 8 * j);
        unroll<kRows>([&](int r) { sums[r][j] = _mm256_fmadd_ps(weight[r], value, sums[r][j]); });
      });
    } else {
      __m256 value[kVectors];
      unroll<kVectors>([&](int j) { value[j] = Read::eight(v + 8 * j); });
      unroll<kRows>([&](int r) {
        const __m256 weight = _mm256_broadcast_ss(weights + r * kAttendChunk + p);
        unroll<kVectors>(
            [&](int j) { sums[r][j] = _mm256_fmadd_ps(weight, value[j], sums[r][j]); });
      });
    }
  }
  unroll<kRows * kVectors>([&](int i) {
    const int r = i / kVectors, j = i % kVectors;
    _mm256_storeu_ps(rows[r].out + d + 8 * j, sums[r][j]);
  });
}

template <class Read, int kRows>
void add_columns(const AttendRow* rows, const KvHead& kv, const float* weights, int64_t from,
                 int64_t to, int64_t Dh) {
  constexpr int kVectors = kRows == 6 ? 2 : 4;
  int64_t d = 0;
  for (; d + 8 * kVectors <= Dh; d += 8 * kVectors) {
    add_values<Read, kRows, kVectors>(rows, kv, weights, from, to, Dh, d);
  }
  for (; d + 8 <= Dh; d += 8) add_values<Read, kRows, 1>(rows, kv, weights, from, to, Dh, d);
  const auto* v = static_cast<const typename Read::Value*>(kv.v);
  for (; d < Dh; ++d) {
    for (int r = 0; r < kRows; ++r) {
      float sum = from == 0 ? 0.0f : rows[r].out[d];
      for (int64_t p = from; p < to; ++p) {
        sum = __builtin_fmaf(weights[r * kAttendChunk + p], Read::one(v + p * Dh + d), sum);
      }
      rows[r].out[d] = sum;
    }
  }
}

template <class Read, int kRows>
void attend_block(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, float* scores) {
  int64_t most = rows[0].n, least = rows[0].n;
  for (int r = 1; r < kRows; ++r) {
    most = rows[r].n > most ? rows[r].n : most;
    least = rows[r].n < least ? rows[r].n : least;
  }
  constexpr int kTiles = kRows == 6 ? 1 : 2;  // enough sums to hide the latency
  const int64_t tiles = (most + kKeyTile - 1) / kKeyTile;
  int64_t tile = 0;
  for (; tile + kTiles <= tiles; tile += kTiles) {
    score_tiles<Read, kRows, kTiles>(rows, kv, tile, most, Dh, scale, scores);
  }
  for (; tile < tiles; ++tile) {
    score_tiles<Read, kRows, 1>(rows, kv, tile, most, Dh, scale, scores);
  }
  for (int r = 0; r < kRows; ++r) weigh(rows[r], kv, scores + r * kAttendChunk);
  add_columns<Read, kRows>(rows, kv, scores, 0, least, Dh);
  for (int r = 0; r < kRows; ++r) {
    if (rows[r].n == least) continue;
    add_columns<Read, 1>(rows + r, kv, scores + r * kAttendChunk, least, rows[r].n, Dh);
  }
}

template <class Read>
void attend_typed(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, int64_t count,
                  float* scores) {
  int64_t r = 0;
  for (; r + 6 <= count; r += 6) attend_block<Read, 6>(kv, Dh, scale, rows + r, scores);
  for (; r + 3 <= count; r += 3) attend_block<Read, 3>(kv, Dh, scale, rows + r, scores);
  for (; r < count; ++r) attend_block<Read, 1>(kv, Dh, scale, rows + r, scores);
}

}  // namespace

void attend(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, int64_t count,
            float* scores) noexcept {
  if (kv.type == KvType::kF32) return attend_typed<ReadF32>(kv, Dh, scale, rows, count, scores);
  if (kv.type == KvType::kF16) return attend_typed<ReadF16>(kv, Dh, scale, rows, count, scores);
  attend_typed<ReadI8>(kv, Dh, scale, rows, count, scores);
}

}  // namespace crumb::kernels::avx2

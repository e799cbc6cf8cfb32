// Attention of a block of queries over one chunk. In a tile of keys a lane is a position, so that
// scores need no fold; every key and value is converted once for up to 4 queries, whose sums stay
// in registers.
#include <arm_neon.h>

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/neon.h"

namespace crumb::kernels::neon {
namespace {

// Sixteen or four values of keys and values, without their scale.
struct ReadF32 {
  using Value = float;
  [[gnu::always_inline]] static float32x4_t four(const float* p) { return vld1q_f32(p); }
  [[gnu::always_inline]] static float one(const float* p) { return *p; }
};
struct ReadF16 {
  using Value = uint16_t;
  [[gnu::always_inline]] static float32x4_t four(const uint16_t* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
  }
  [[gnu::always_inline]] static float one(const uint16_t* p) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(*p))), 0);
  }
};
struct ReadI8 {
  using Value = int8_t;
  [[gnu::always_inline]] static float32x4_t four(const int8_t* p) {
    uint32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    const int8x8_t wide = vreinterpret_s8_u32(vdup_n_u32(bytes));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(wide))));
  }
  [[gnu::always_inline]] static float one(const int8_t* p) { return static_cast<float>(*p); }
};

// scores[r][p] = dot(q_r, k_p) [* k_scale_p] * scale for one tile.
template <class Read, int kRows>
void score_tile(const AttendRow* rows, const KvHead& kv, int64_t tile, int64_t n, int64_t Dh,
                float scale, float* scores) {
  const auto* k = static_cast<const typename Read::Value*>(kv.k) + tile * Dh * kKeyTile;
  float32x4_t s[kRows][4];
  unroll<kRows * 4>([&](int i) { s[i / 4][i % 4] = vdupq_n_f32(0.0f); });
  for (int64_t d = 0; d < Dh; ++d, k += kKeyTile) {
    float32x4_t key[4];
    unroll<4>([&](int j) { key[j] = Read::four(k + 4 * j); });
    unroll<kRows>([&](int r) {
      const float32x4_t q = vdupq_n_f32(rows[r].q[d]);
      unroll<4>([&](int j) { s[r][j] = vfmaq_f32(s[r][j], q, key[j]); });
    });
  }
  float k_scale[kKeyTile];
  const int64_t first = tile * kKeyTile;
  for (int64_t p = 0; p < kKeyTile; ++p) {
    k_scale[p] = kv.type == KvType::kI8 && first + p < n ? kv.k_scale[first + p] : 1.0f;
  }
  unroll<kRows * 4>([&](int i) {
    const int r = i / 4, j = i % 4;
    const float32x4_t scaled = vmulq_f32(s[r][j], vld1q_f32(k_scale + 4 * j));
    vst1q_f32(scores + r * kAttendChunk + first + 4 * j, vmulq_n_f32(scaled, scale));
  });
}

// scores[p] = exp(scores[p] - max) [* v_scale_p] for p < row.n.
void weigh(AttendRow& row, const KvHead& kv, float* scores) {
  for (int64_t p = 0; p < row.first; ++p) scores[p] = -__builtin_inff();
  row.max = -__builtin_inff();
  for (int64_t p = 0; p < row.n; ++p) row.max = scores[p] > row.max ? scores[p] : row.max;
  const float32x4_t top = vdupq_n_f32(row.max);
  for (int64_t p = 0; p < row.n; p += 4) {
    vst1q_f32(scores + p, exp4(vsubq_f32(vld1q_f32(scores + p), top)));
  }
  // exp is never -0, so adding zeros changes no lane.
  for (int64_t p = row.n; p % kKeyTile != 0; ++p) scores[p] = 0.0f;
  Lanes lanes = no_lanes();
  for (int64_t p = 0; p < row.n; p += 16) {
    unroll<4>([&](int j) { lanes.v[j] = vaddq_f32(lanes.v[j], vld1q_f32(scores + p + 4 * j)); });
  }
  row.sum = fold(lanes);
  if (kv.type != KvType::kI8) return;
  for (int64_t p = 0; p < row.n; ++p) scores[p] *= kv.v_scale[p];
}

// out_r[d] += sum of weights[r][p] * v[p, d] over positions [from, to), for kVectors * 4 columns at
// d. From position 0 on, `out` starts at 0.
template <class Read, int kRows, int kVectors>
void add_values(const AttendRow* rows, const KvHead& kv, const float* weights, int64_t from,
                int64_t to, int64_t Dh, int64_t d) {
  float32x4_t sums[kRows][kVectors];
  unroll<kRows * kVectors>([&](int i) {
    const int r = i / kVectors, j = i % kVectors;
    sums[r][j] = from == 0 ? vdupq_n_f32(0.0f) : vld1q_f32(rows[r].out + d + 4 * j);
  });
  const auto* v = static_cast<const typename Read::Value*>(kv.v) + from * Dh + d;
  for (int64_t p = from; p < to; ++p, v += Dh) {
    float32x4_t value[kVectors];
    unroll<kVectors>([&](int j) { value[j] = Read::four(v + 4 * j); });
    unroll<kRows>([&](int r) {
      const float32x4_t weight = vdupq_n_f32(weights[r * kAttendChunk + p]);
      unroll<kVectors>([&](int j) { sums[r][j] = vfmaq_f32(sums[r][j], weight, value[j]); });
    });
  }
  unroll<kRows * kVectors>([&](int i) {
    const int r = i / kVectors, j = i % kVectors;
    vst1q_f32(rows[r].out + d + 4 * j, sums[r][j]);
  });
}

template <class Read, int kRows>
void add_columns(const AttendRow* rows, const KvHead& kv, const float* weights, int64_t from,
                 int64_t to, int64_t Dh) {
  int64_t d = 0;
  for (; d + 16 <= Dh; d += 16) add_values<Read, kRows, 4>(rows, kv, weights, from, to, Dh, d);
  for (; d + 4 <= Dh; d += 4) add_values<Read, kRows, 1>(rows, kv, weights, from, to, Dh, d);
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
  for (int64_t tile = 0; tile * kKeyTile < most; ++tile) {
    score_tile<Read, kRows>(rows, kv, tile, most, Dh, scale, scores);
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
  for (; r + 4 <= count; r += 4) attend_block<Read, 4>(kv, Dh, scale, rows + r, scores);
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

}  // namespace crumb::kernels::neon

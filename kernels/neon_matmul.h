// Packed weights times int8 activations: one template for the NEON instruction sets, which differ
// in `Dot`, how four products go into a 32-bit lane. A register of codes is 4 rows x 4 columns, so
// a lane is a row; activations stay in registers of 16 columns and are taken four by four.
//
// Dot:  Acc                   sums of 4 rows
//       zero()                an empty Acc
//       add<lane>(acc, v, q)  acc += codes v (of `code<bits>`) times columns 4 * lane .. of q
//       flush(acc)            after at most 8 adds of INT2 to INT4 codes, after each of INT8
//       total(acc)            int32 of the 4 rows
//       kOffset               what code<8> took from each INT8 code
//       kMasked               codes up to 0x30 (or 0xf0 with kUnsigned) may stay in place
#pragma once
#include <arm_neon.h>

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/layout.h"
#include "kernels/neon.h"

namespace crumb::kernels::neon {

inline constexpr int kRegisters = 4;  // of 4 rows: half a strip
inline constexpr int kHalfRows = 16;

// Half a strip of the matrix.
struct HalfStrip {
  const uint8_t* codes;    // first row's bytes in step 0
  const uint16_t* scales;  // [groups, 32], at the first row
  const uint8_t* zeros;    // [groups, 32], at the first row, or null
  int64_t columns;         // padded
  int64_t group;           // of the weights
  int32_t zero2;           // without stored zeros
};

// Codes of 4 rows in field `f` (4 columns) of a block of 32 columns, one a byte.
template <int bits, int f>
[[gnu::always_inline]] static inline uint8x16_t unpack(const uint8_t* block) {
  if constexpr (bits == 8) return vld1q_u8(block + f * 128);
  if constexpr (bits == 4) {
    const uint8x16_t v = vld1q_u8(block + f / 2 * 128);
    if constexpr (f % 2 == 0) return vandq_u8(v, vdupq_n_u8(15));
    if constexpr (f % 2 != 0) return vshrq_n_u8(v, 4);
  }
  if constexpr (bits == 2 || bits == 3) {
    uint8x16_t v = vld1q_u8(block + f / 4 * 128);
    if constexpr (f % 4 != 0) v = vshrq_n_u8(v, f % 4 * 2);
    if constexpr (f % 4 != 3) v = vandq_u8(v, vdupq_n_u8(3));
    if constexpr (bits == 3) {
      uint8x16_t high = vld1q_u8(block + 256);
      if constexpr (f < 2) high = vshlq_n_u8(high, 2 - f);
      if constexpr (f > 2) high = vshrq_n_u8(high, f - 2);
      v = vorrq_u8(v, vandq_u8(high, vdupq_n_u8(4)));
    }
    return v;
  }
}

template <class Dot, int bits>
[[gnu::always_inline]] static inline uint8x16_t as_operand(uint8x16_t codes) {
  if constexpr (bits == 8 && Dot::kOffset != 0) return veorq_u8(codes, vdupq_n_u8(0x80));
  return codes;
}

// acc[t][r] += one block of 32 columns for `tokens` tokens.
template <class Dot, int bits, int tokens>
[[gnu::always_inline]] static inline void add_block(const uint8_t* block, const int8_t* q,
                                                    int64_t stride,
                                                    typename Dot::Acc (&acc)[tokens][kRegisters]) {
  int8x16_t x[tokens][2];
  unroll<2 * tokens>([&](int i) { x[i / 2][i % 2] = vld1q_s8(q + i / 2 * stride + i % 2 * 16); });
  unroll<8>([&](auto field) {
    constexpr int f = decltype(field)::value;
    unroll<kRegisters>([&](int r) {
      const uint8x16_t v = as_operand<Dot, bits>(unpack<bits, f>(block + 16 * r));
      unroll<tokens>([&](int t) { Dot::template add<f % 4>(acc[t][r], v, x[t][f / 4]); });
    });
    if constexpr (bits == 8) {
      unroll<tokens * kRegisters>([&](int i) { Dot::flush(acc[i / kRegisters][i % kRegisters]); });
    }
  });
  if constexpr (bits != 8) {
    unroll<tokens * kRegisters>([&](int i) { Dot::flush(acc[i / kRegisters][i % kRegisters]); });
  }
}

template <class Dot, int bits, int tokens>
[[gnu::always_inline]] static inline void dots(const HalfStrip& w, int64_t first, int64_t columns,
                                               const int8_t* q, int64_t stride,
                                               int32x4_t (&sums)[tokens][kRegisters]) {
  typename Dot::Acc acc[tokens][kRegisters];
  unroll<tokens * kRegisters>([&](int i) { acc[i / kRegisters][i % kRegisters] = Dot::zero(); });
  for (int64_t k = first; k < first + columns; k += kColumnAlign) {
    add_block<Dot, bits>(w.codes + k * 4 * bits, q + k, stride, acc);
  }
  unroll<tokens * kRegisters>([&](int i) {
    sums[i / kRegisters][i % kRegisters] = Dot::total(acc[i / kRegisters][i % kRegisters]);
  });
}

// One token, INT2 and INT4, without shifting: a field at bit position p counts 2^p times in sums of
// its own, which are shifted back at the end. Signed codes must leave bit 7 alone.
template <class Dot, int bits>
[[gnu::always_inline]] static inline void masked_dots(const HalfStrip& w, int64_t first,
                                                      int64_t columns, const int8_t* q,
                                                      int32x4_t (&sums)[1][kRegisters]) {
  constexpr int kFields = 8 / bits, kStepColumns = 4 * kFields;
  typename Dot::Acc acc[kFields][kRegisters];
  unroll<kFields * kRegisters>([&](int i) { acc[i / kRegisters][i % kRegisters] = Dot::zero(); });
  for (int64_t k = first; k < first + columns; k += 16) {
    const int8x16_t x = vld1q_s8(q + k);
    unroll<16 / kStepColumns>([&](auto step) {
      constexpr int s = decltype(step)::value;
      const uint8_t* codes = w.codes + (k + s * kStepColumns) * 4 * bits;
      unroll<kRegisters>([&](int r) {
        const uint8x16_t v = vld1q_u8(codes + 16 * r);
        unroll<kFields>([&](auto field) {
          constexpr int f = decltype(field)::value, shift = f * bits;
          constexpr int lane = s * kFields + f;
          if constexpr (Dot::kUnsigned || shift + bits < 8) {
            const auto mask = static_cast<uint8_t>(((1u << bits) - 1u) << shift);
            Dot::template add<lane>(acc[f][r], vandq_u8(v, vdupq_n_u8(mask)), x);
          } else {
            Dot::template add<lane>(acc[0][r], vshrq_n_u8(v, shift), x);
          }
        });
      });
    });
  }
  unroll<kRegisters>([&](int r) {
    int32x4_t sum = Dot::total(acc[0][r]);
    unroll<kFields - 1>([&](auto field) {
      constexpr int f = decltype(field)::value + 1;
      if constexpr (Dot::kUnsigned || f * bits + bits < 8) {
        sum = vaddq_s32(sum, vshrq_n_s32(Dot::total(acc[f][r]), f * bits));
      }
    });
    sums[0][r] = sum;
  });
}

// f = fma(float(2 * sum - zero2 * sum of q), scale * (x.scale / 2), f).
template <class Dot, int bits, int tokens>
[[gnu::always_inline]] static inline void finish_group(const HalfStrip& w, const QuantizedRows& x,
                                                       int64_t t0, int64_t a, int64_t g,
                                                       const int32x4_t (&sums)[tokens][kRegisters],
                                                       float32x4_t (&f)[tokens][kRegisters]) {
  constexpr int32_t kOffset2 = bits == 8 ? 2 * Dot::kOffset : 0;
  unroll<kRegisters>([&](int r) {
    const int64_t at = g * kStripRows + 4 * r;
    const float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(w.scales + at)));
    int32x4_t zero2 = vdupq_n_s32(w.zero2 - kOffset2);
    if (w.zeros != nullptr) {
      int32_t zeros[4];
      for (int i = 0; i < 4; ++i) zeros[i] = 2 * w.zeros[at + i] - kOffset2;
      zero2 = vld1q_s32(zeros);
    }
    unroll<tokens>([&](int t) {
      const int64_t row = (t0 + t) * x.groups + a;
      const int32x4_t total = vmlsq_n_s32(vshlq_n_s32(sums[t][r], 1), zero2, x.sums[row]);
      f[t][r] = vfmaq_f32(f[t][r], vcvtq_f32_s32(total), vmulq_n_f32(scale, 0.5f * x.scales[row]));
    });
  });
}

// Tokens [t0, t0 + tokens) times half a strip, of which the first `rows` are stored at y.
template <class Dot, int bits, int tokens>
static void run_tile(const HalfStrip& w, const QuantizedRows& x, int64_t t0, int64_t rows, float* y,
                     int64_t ldy) {
  float32x4_t f[tokens][kRegisters];
  unroll<tokens * kRegisters>(
      [&](int i) { f[i / kRegisters][i % kRegisters] = vdupq_n_f32(0.0f); });
  const int8_t* q = x.q + t0 * x.stride;
  int64_t g = 0;
  for (int64_t a = 0; a < x.groups; ++a) {
    const int64_t first = a * x.group;
    if (first >= (g + 1) * w.group) ++g;
    const int64_t left = w.columns - first;
    const int64_t columns = left < x.group ? left : x.group;
    int32x4_t sums[tokens][kRegisters];
    if constexpr (Dot::kMasked && tokens == 1 && (bits == 2 || bits == 4)) {
      masked_dots<Dot, bits>(w, first, columns, q, sums);
    } else {
      dots<Dot, bits>(w, first, columns, q, x.stride, sums);
    }
    finish_group<Dot, bits>(w, x, t0, a, g, sums, f);
  }
  unroll<tokens>([&](int t) {
    float* out = y + (t0 + t) * ldy;
    float values[kHalfRows];
    unroll<kRegisters>(
        [&](int r) { vst1q_f32(rows >= kHalfRows ? out + 4 * r : values + 4 * r, f[t][r]); });
    for (int64_t i = 0; rows < kHalfRows && i < rows; ++i) out[i] = values[i];
  });
}

template <class Dot, int bits>
static void matmul_bits(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                        int64_t ldy) {
  const int64_t columns = (w.cols + kColumnAlign - 1) / kColumnAlign * kColumnAlign;
  const int64_t groups = (w.cols + w.group - 1) / w.group;
  const int32_t zero2 = (1 << bits) - (w.grid == Grid::kSeq ? 1 : 0);
  const int64_t halves = (w.rows + kHalfRows - 1) / kHalfRows;
  for (int64_t h = 2 * strips.begin; h < 2 * strips.end && h < halves; ++h) {
    const int64_t n = h * kHalfRows, in_strip = h % 2 * kHalfRows;
    const int64_t values = h / 2 * groups * kStripRows + in_strip;
    const HalfStrip half{w.codes + h / 2 * columns * 4 * bits + in_strip * 4,
                         w.scales + values,
                         w.grid == Grid::kAsym ? w.zeros + values : nullptr,
                         columns,
                         w.group,
                         zero2};
    const int64_t rows = w.rows - n;
    int64_t t = 0;
    for (; t + 4 <= x.tokens; t += 4) run_tile<Dot, bits, 4>(half, x, t, rows, y + n, ldy);
    for (; t + 2 <= x.tokens; t += 2) run_tile<Dot, bits, 2>(half, x, t, rows, y + n, ldy);
    for (; t < x.tokens; ++t) run_tile<Dot, bits, 1>(half, x, t, rows, y + n, ldy);
  }
}

template <class Dot>
static void matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                   int64_t ldy) noexcept {
  if (w.bits == 2) return matmul_bits<Dot, 2>(w, x, strips, y, ldy);
  if (w.bits == 3) return matmul_bits<Dot, 3>(w, x, strips, y, ldy);
  if (w.bits == 4) return matmul_bits<Dot, 4>(w, x, strips, y, ldy);
  matmul_bits<Dot, 8>(w, x, strips, y, ldy);
}

}  // namespace crumb::kernels::neon

// Packed weights times int8 activations in 256-bit registers: what AVX2 and AVX-VNNI share. They
// differ in `Dot`, how products are added.
// A tile is `tokens` tokens times `vectors` registers of 8 rows; unpacked codes are shared by all
// its tokens, broadcast activations by all its rows.
//
// With one token the codes are prefetched kPrefetchBytes ahead: measured on Zen 3 and Sapphire
// Rapids, the hardware's own prefetching of one stream reaches two thirds of what a core can read.
//
// Dot:  add_columns<bits>(codes, ahead, q, stride, columns, acc)
//                    acc += 2 * sum(code * q) over `columns` columns, a multiple of 32
//       kInt8Offset  what add_columns<8> took from each code, times 2
//       kTokens      most tokens of a tile
//       kWideTokens  most tokens of a tile of 4 registers, above it has 2
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx2.h"
#include "kernels/backend.h"
#include "kernels/layout.h"

namespace crumb::kernels::avx2 {
namespace {

constexpr int64_t kPrefetchBytes = 8192;
constexpr int64_t kRowsPerVector = 8;
constexpr int kFields = 8;  // a block is 32 columns = 8 fields of 4

template <int tokens, int vectors>
struct Tile {
  __m256i v[tokens][vectors];
};

template <int tokens, int vectors>
[[gnu::always_inline]] inline void clear(Tile<tokens, vectors>& tile) {
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < vectors; ++r) tile.v[t][r] = _mm256_setzero_si256();
  }
}

[[gnu::always_inline]] inline __m256i load(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// The same 4 activations in every 32-bit lane.
[[gnu::always_inline]] inline __m256i broadcast4(const int8_t* q) {
  int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return _mm256_set1_epi32(four);
}

template <int shift>
[[gnu::always_inline]] inline __m256i shift_right(__m256i v) {
  if constexpr (shift > 0) return _mm256_srli_epi16(v, shift);
  if constexpr (shift < 0) return _mm256_slli_epi16(v, -shift);
  return v;
}

// Codes of 8 rows in field `f` of a block, one a byte; p points at the rows' bytes in the block.
// Shifts of 16-bit lanes drag in bits of the neighbour byte, which the masks remove.
template <int bits, int f>
[[gnu::always_inline]] inline __m256i unpack(const uint8_t* p) {
  if constexpr (bits == 8) {
    return load(p + f * 128);
  } else if constexpr (bits == 4) {
    const __m256i v = shift_right<f % 2 * 4>(load(p + f / 2 * 128));
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
  } else {
    const __m256i v = shift_right<f % 4 * 2>(load(p + f / 4 * 128));
    const __m256i low = _mm256_and_si256(v, _mm256_set1_epi8(3));
    if constexpr (bits == 2) return low;
    const __m256i high = shift_right<f - 2>(load(p + 256));
    return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(4)));
  }
}

template <int bytes>
[[gnu::always_inline]] inline void prefetch(const uint8_t* p) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T0);
}

// One strip of the matrix, cut to `vectors` registers of rows.
struct StripView {
  const uint8_t* codes;    // first row's bytes in step 0
  const uint16_t* scales;  // [groups, 32], at the first row
  const uint8_t* zeros;    // [groups, 32], at the first row, or null
  int64_t columns;         // padded
  int group_shift;         // column k is in the weights' group k >> group_shift
  int32_t zero2;           // without stored zeros
  int64_t ahead;           // distance to what is prefetched, never past the caller's last strip
};

// 2 * zero point of 8 rows.
[[gnu::always_inline]] inline __m256i stored_zero2(const uint8_t* zeros) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros));
  return _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 1);
}

// acc = -zero2 * sum(q) as far as the zero point is the same for all rows.
template <int32_t offset, int tokens, int vectors>
[[gnu::always_inline]] inline void start_group(const StripView& w, const QuantizedRows& x,
                                               int64_t t0, int64_t a, Tile<tokens, vectors>& acc) {
  for (int t = 0; t < tokens; ++t) {
    const int32_t sum = x.sums[(t0 + t) * x.groups + a];
    const __m256i common = _mm256_set1_epi32((offset - w.zero2) * sum);
    for (int r = 0; r < vectors; ++r) acc.v[t][r] = common;
  }
}

// f = fma(float(acc), scale * (x.scale / 2), f), after the stored zero points.
template <int tokens, int vectors>
[[gnu::always_inline]] inline void finish_group(const StripView& w, const QuantizedRows& x,
                                                int64_t t0, int64_t a, int64_t g,
                                                const Tile<tokens, vectors>& acc,
                                                __m256 (&f)[tokens][vectors]) {
  for (int r = 0; r < vectors; ++r) {
    const int64_t first = g * kStripRows + kRowsPerVector * r;
    const __m256 scale =
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w.scales + first)));
    for (int t = 0; t < tokens; ++t) {
      const int64_t at = (t0 + t) * x.groups + a;
      __m256i total = acc.v[t][r];
      if (w.zeros != nullptr) {
        const __m256i zero2 = stored_zero2(w.zeros + first);
        total = _mm256_sub_epi32(total, _mm256_mullo_epi32(zero2, _mm256_set1_epi32(x.sums[at])));
      }
      const __m256 half = _mm256_set1_ps(0.5f * x.scales[at]);
      f[t][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), _mm256_mul_ps(scale, half), f[t][r]);
    }
  }
}

// y[0, 8) = f for the first `rows` of 8 rows.
[[gnu::always_inline]] inline void store_rows(float* y, __m256 f, int64_t rows) {
  if (rows >= kRowsPerVector) return _mm256_storeu_ps(y, f);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(rows)), lane);
  _mm256_maskstore_ps(y, mask, f);
}

// Tokens [t0, t0 + tokens) times 8 * vectors rows, of which the first `rows` are stored at y.
// kGroup is x.group if it divides the columns, or 0: any.
template <class Dot, int bits, int tokens, int vectors, int64_t kGroup = 0>
void run_tile(const StripView& w, const QuantizedRows& x, int64_t t0, int64_t rows, float* y,
              int64_t ldy) {
  __m256 f[tokens][vectors];
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < vectors; ++r) f[t][r] = _mm256_setzero_ps();
  }
  const int8_t* q = x.q + t0 * x.stride;
  const int64_t group = kGroup != 0 ? kGroup : x.group;
  int64_t a = 0;
  for (int64_t first = 0; first < w.columns; first += group, ++a) {
    const int64_t left = w.columns - first;
    const int64_t columns = kGroup != 0 || group < left ? group : left;
    Tile<tokens, vectors> acc;
    start_group<bits == 8 ? Dot::kInt8Offset : 0>(w, x, t0, a, acc);
    Dot::template add_columns<bits>(w.codes + first * 4 * bits, w.ahead, q + first, x.stride,
                                    columns, acc);
    finish_group(w, x, t0, a, first >> w.group_shift, acc, f);
  }
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < vectors; ++r) {
      const int64_t from = kRowsPerVector * r;
      if (from < rows) store_rows(y + (t0 + t) * ldy + from, f[t][r], rows - from);
    }
  }
}

// One token, for which the loops of the usual groups are unrolled.
template <class Dot, int bits>
void run_one(const StripView& w, const QuantizedRows& x, int64_t t0, int64_t rows, float* y,
             int64_t ldy) {
  if (x.group == 64 && w.columns % 64 == 0) {
    run_tile<Dot, bits, 1, 4, 64>(w, x, t0, rows, y, ldy);
  } else if (x.group == 32) {
    run_tile<Dot, bits, 1, 4, 32>(w, x, t0, rows, y, ldy);
  } else {
    run_tile<Dot, bits, 1, 4>(w, x, t0, rows, y, ldy);
  }
}

// Two tiles of 16 rows, for more tokens than fit the registers with 32.
template <class Dot, int bits, int tokens>
void run_halves(const StripView& w, const QuantizedRows& x, int64_t t0, int64_t rows, float* y,
                int64_t ldy) {
  run_tile<Dot, bits, tokens, 2>(w, x, t0, rows, y, ldy);
  if (rows <= 16) return;
  StripView upper = w;
  upper.codes += 64;
  upper.scales += 16;
  if (upper.zeros != nullptr) upper.zeros += 16;
  run_tile<Dot, bits, tokens, 2>(upper, x, t0, rows - 16, y + 16, ldy);
}

// Tokens [t0, t0 + count), count <= tokens.
template <class Dot, int bits, int tokens>
void run_tokens(const StripView& w, const QuantizedRows& x, int64_t t0, int64_t count, int64_t rows,
                float* y, int64_t ldy) {
  if (count < tokens) {
    if constexpr (tokens > 1) run_tokens<Dot, bits, tokens - 1>(w, x, t0, count, rows, y, ldy);
  } else if constexpr (tokens == 1) {
    run_one<Dot, bits>(w, x, t0, rows, y, ldy);
  } else if constexpr (tokens <= Dot::kWideTokens) {
    run_tile<Dot, bits, tokens, 4>(w, x, t0, rows, y, ldy);
  } else {
    run_halves<Dot, bits, tokens>(w, x, t0, rows, y, ldy);
  }
}

template <class Dot, int bits>
void matmul_bits(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                 int64_t ldy) {
  const int64_t columns = (w.cols + kColumnAlign - 1) / kColumnAlign * kColumnAlign;
  const int64_t groups = (w.cols + w.group - 1) / w.group;
  const int32_t zero2 = w.grid == Grid::kAsym ? 0 : (1 << bits) - (w.grid == Grid::kSeq ? 1 : 0);
  const int64_t strip_bytes = columns * 4 * bits;
  // A group of all columns is the only one whose length may be no power of two: k >> 62 is 0.
  const int shift = w.group == w.cols ? 62 : __builtin_ctzll(static_cast<uint64_t>(w.group));
  for (int64_t s = strips.begin; s < strips.end; ++s) {
    const int64_t n = s * kStripRows;
    const int64_t rows = w.rows - n < kStripRows ? w.rows - n : kStripRows;
    const int64_t values = s * groups * kStripRows;
    const int64_t left = (strips.end - 1 - s) * strip_bytes;
    const StripView view{w.codes + s * strip_bytes,
                         w.scales + values,
                         w.grid == Grid::kAsym ? w.zeros + values : nullptr,
                         columns,
                         shift,
                         zero2,
                         left < kPrefetchBytes ? left : kPrefetchBytes};
    for (int64_t t = 0; t < x.tokens; t += Dot::kTokens) {
      run_tokens<Dot, bits, Dot::kTokens>(view, x, t, x.tokens - t, rows, y + n, ldy);
    }
  }
}

template <class Dot>
void matmul_by(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y, int64_t ldy) {
  switch (w.bits) {
    case 2:
      return matmul_bits<Dot, 2>(w, x, strips, y, ldy);
    case 3:
      return matmul_bits<Dot, 3>(w, x, strips, y, ldy);
    case 4:
      return matmul_bits<Dot, 4>(w, x, strips, y, ldy);
    default:
      return matmul_bits<Dot, 8>(w, x, strips, y, ldy);
  }
}

}  // namespace
}  // namespace crumb::kernels::avx2

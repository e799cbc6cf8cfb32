// Packed weights times int8 activations with AVX2 (no VNNI): vpmaddubsw multiplies unsigned codes
// by signed activations and adds pairs into int16, which saturates; every sum below is kept in
// range.
//   code <= 3:  2 *  3 * 127 =   762 a product pair
//   code <= 7:  2 *  7 * 127 =  1778
//   code <= 15: 2 * 15 * 127 =  3810, so 8 sums fit int16 (30480)
// The int16 sums are widened by vpmaddwd with twos: it adds pairs and gives the factor 2 of
// 2 * sum(code * q) for nothing. INT8 codes do not fit this way, see add_block<8>.
// A tile is `tokens` tokens times `vectors` registers of 8 rows; unpacked codes are shared by all
// its tokens, broadcast activations by all its rows.
//
// With one token the codes are prefetched kPrefetchBytes ahead: measured on Zen 3 and Sapphire
// Rapids, the hardware's own prefetching of one stream reaches two thirds of what a core can read.
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

// sum += products of unsigned codes and signed activations. The empty asm keeps the addition where
// it is: gcc would otherwise do all products of a block first and spill them (half the speed).
[[gnu::always_inline]] inline void add_products(__m256i& sum, __m256i codes, __m256i x) {
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
  asm("" : "+x"(sum));
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
  if constexpr (bits == 4) {
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

template <int bits, int tokens, int vectors, int f = 0>
[[gnu::always_inline]] inline void add_fields(const uint8_t* block, const int8_t* q, int64_t stride,
                                              Tile<tokens, vectors>& sums16) {
  __m256i codes[vectors];
  for (int r = 0; r < vectors; ++r) codes[r] = unpack<bits, f>(block + 32 * r);
  for (int t = 0; t < tokens; ++t) {
    const __m256i x = broadcast4(q + t * stride + 4 * f);
    for (int r = 0; r < vectors; ++r) {
      add_products(sums16.v[t][r], codes[r], x);
    }
  }
  if constexpr (f + 1 < kFields) {
    add_fields<bits, tokens, vectors, f + 1>(block, q, stride, sums16);
  }
}

template <int tokens, int vectors>
[[gnu::always_inline]] inline void flush(const Tile<tokens, vectors>& sums16,
                                         Tile<tokens, vectors>& acc) {
  const __m256i twos = _mm256_set1_epi16(2);
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < vectors; ++r) {
      acc.v[t][r] = _mm256_add_epi32(acc.v[t][r], _mm256_madd_epi16(sums16.v[t][r], twos));
    }
  }
}

// acc += 2 * sum(code * q) over `blocks` blocks of 32 columns.
template <int bits, int blocks, int tokens, int vectors>
[[gnu::always_inline]] inline void add_blocks(const uint8_t* codes, const int8_t* q, int64_t stride,
                                              Tile<tokens, vectors>& acc) {
  Tile<tokens, vectors> sums16;
  clear(sums16);
  for (int b = 0; b < blocks; ++b) {
    add_fields<bits>(codes + b * 128 * bits, q + b * kColumnAlign, stride, sums16);
  }
  flush(sums16, acc);
}

// INT2 for one token: fields 1 and 3 stay in place as codes * 4 (<= 12, 3048 a product pair), which
// saves two of three shifts and costs a second accumulator. 64 columns are 8 of them: 24384.
template <int blocks>
[[gnu::always_inline]] inline void add_int2(const uint8_t* codes, const int8_t* q,
                                            Tile<1, 4>& acc) {
  const __m256i mask1 = _mm256_set1_epi8(3);
  const __m256i mask4 = _mm256_set1_epi8(12);
  Tile<1, 4> by1;
  Tile<1, 4> by4;
  clear(by1);
  clear(by4);
  for (int step = 0; step < 2 * blocks; ++step) {
    const __m256i x0 = broadcast4(q + 16 * step);
    const __m256i x1 = broadcast4(q + 16 * step + 4);
    const __m256i x2 = broadcast4(q + 16 * step + 8);
    const __m256i x3 = broadcast4(q + 16 * step + 12);
    for (int r = 0; r < 4; ++r) {
      const __m256i v = load(codes + 128 * step + 32 * r);
      const __m256i u = _mm256_srli_epi16(v, 4);
      add_products(by1.v[0][r], _mm256_and_si256(v, mask1), x0);
      add_products(by4.v[0][r], _mm256_and_si256(v, mask4), x1);
      add_products(by1.v[0][r], _mm256_and_si256(u, mask1), x2);
      add_products(by4.v[0][r], _mm256_and_si256(u, mask4), x3);
    }
  }
  for (int r = 0; r < 4; ++r) {
    by1.v[0][r] = _mm256_add_epi16(by1.v[0][r], _mm256_srai_epi16(by4.v[0][r], 2));
  }
  flush(by1, acc);
}

// INT8: with s = code - 128, sum(s * q) = sum(|s| * (sign(s) q)); 2 * 128 * 127 = 32512 fits int16
// once, so every product pair is widened. The missing 128 goes into the zero point.
template <int tokens, int vectors>
[[gnu::always_inline]] inline void add_int8(const uint8_t* codes, const int8_t* q, int64_t stride,
                                            Tile<tokens, vectors>& acc) {
  const __m256i flip = _mm256_set1_epi8(-128);
  for (int f = 0; f < kFields; ++f) {
    __m256i s[vectors];
    for (int r = 0; r < vectors; ++r) {
      s[r] = _mm256_xor_si256(load(codes + 128 * f + 32 * r), flip);
    }
    for (int t = 0; t < tokens; ++t) {
      const __m256i x = broadcast4(q + t * stride + 4 * f);
      Tile<1, 1> products;
      for (int r = 0; r < vectors; ++r) {
        products.v[0][0] = _mm256_maddubs_epi16(_mm256_abs_epi8(s[r]), _mm256_sign_epi8(x, s[r]));
        Tile<1, 1> one{{{acc.v[t][r]}}};
        flush(products, one);
        acc.v[t][r] = one.v[0][0];
      }
    }
  }
}

template <int bytes>
[[gnu::always_inline]] inline void prefetch(const uint8_t* p) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T0);
}

// acc += 2 * sum(code * q) over `columns` columns, a multiple of 32 (INT8: s in place of code).
template <int bits, int tokens, int vectors>
[[gnu::always_inline]] inline void add_columns(const uint8_t* codes, int64_t ahead, const int8_t* q,
                                               int64_t stride, int64_t columns,
                                               Tile<tokens, vectors>& acc) {
  if constexpr (bits == 8 || bits == 4) {
    for (int64_t k = 0; k < columns; k += kColumnAlign) {
      if constexpr (tokens == 1) prefetch<128 * bits>(codes + k * 4 * bits + ahead);
      if constexpr (bits == 8) {
        add_int8(codes + k * 32, q + k, stride, acc);
      } else {
        add_blocks<4, 1>(codes + k * 16, q + k, stride, acc);
      }
    }
  } else {
    int64_t k = 0;
    for (; k + 64 <= columns; k += 64) {
      if constexpr (tokens == 1) prefetch<256 * bits>(codes + k * 4 * bits + ahead);
      if constexpr (bits == 2 && tokens == 1) {
        add_int2<2>(codes + k * 8, q + k, acc);
      } else {
        add_blocks<bits, 2>(codes + k * 4 * bits, q + k, stride, acc);
      }
    }
    if (k == columns) return;
    if constexpr (bits == 2 && tokens == 1) {
      add_int2<1>(codes + k * 8, q + k, acc);
    } else {
      add_blocks<bits, 1>(codes + k * 4 * bits, q + k, stride, acc);
    }
  }
}

// One strip of the matrix, cut to `vectors` registers of rows.
struct StripView {
  const uint8_t* codes;    // first row's bytes in step 0
  const uint16_t* scales;  // [groups, 32], at the first row
  const uint8_t* zeros;    // [groups, 32], at the first row, or null
  int64_t columns;         // padded
  int64_t group;           // of the weights
  int32_t zero2;           // without stored zeros
  int64_t ahead;           // distance to what is prefetched, never past the caller's last strip
};

// 2 * zero point of 8 rows.
[[gnu::always_inline]] inline __m256i stored_zero2(const uint8_t* zeros) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros));
  return _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 1);
}

// acc = -zero2 * sum(q) as far as the zero point is the same for all rows.
template <int bits, int tokens, int vectors>
[[gnu::always_inline]] inline void start_group(const StripView& w, const QuantizedRows& x,
                                               int64_t t0, int64_t a, Tile<tokens, vectors>& acc) {
  constexpr int32_t kShifted = bits == 8 ? 256 : 0;
  for (int t = 0; t < tokens; ++t) {
    const int32_t sum = x.sums[(t0 + t) * x.groups + a];
    const __m256i common = _mm256_set1_epi32((kShifted - w.zero2) * sum);
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
template <int bits, int tokens, int vectors>
void run_tile(const StripView& w, const QuantizedRows& x, int64_t t0, int64_t rows, float* y,
              int64_t ldy) {
  __m256 f[tokens][vectors];
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < vectors; ++r) f[t][r] = _mm256_setzero_ps();
  }
  const int8_t* q = x.q + t0 * x.stride;
  int64_t g = 0;
  for (int64_t a = 0; a < x.groups; ++a) {
    const int64_t first = a * x.group;
    if (first >= (g + 1) * w.group) ++g;
    const int64_t left = w.columns - first;
    const int64_t columns = left < x.group ? left : x.group;
    Tile<tokens, vectors> acc;
    start_group<bits>(w, x, t0, a, acc);
    add_columns<bits>(w.codes + first * 4 * bits, w.ahead, q + first, x.stride, columns, acc);
    finish_group(w, x, t0, a, g, acc, f);
  }
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < vectors; ++r) {
      const int64_t from = kRowsPerVector * r;
      if (from < rows) store_rows(y + (t0 + t) * ldy + from, f[t][r], rows - from);
    }
  }
}

// Two tiles of 16 rows: with 3 or 4 tokens 32 rows would not fit the registers.
template <int bits, int tokens>
void run_halves(const StripView& w, const QuantizedRows& x, int64_t t0, int64_t rows, float* y,
                int64_t ldy) {
  run_tile<bits, tokens, 2>(w, x, t0, rows, y, ldy);
  if (rows <= 16) return;
  StripView upper = w;
  upper.codes += 64;
  upper.scales += 16;
  if (upper.zeros != nullptr) upper.zeros += 16;
  run_tile<bits, tokens, 2>(upper, x, t0, rows - 16, y + 16, ldy);
}

template <int bits>
void matmul_bits(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                 int64_t ldy) {
  const int64_t columns = (w.cols + kColumnAlign - 1) / kColumnAlign * kColumnAlign;
  const int64_t groups = (w.cols + w.group - 1) / w.group;
  const int32_t zero2 = w.grid == Grid::kAsym ? 0 : (1 << bits) - (w.grid == Grid::kSeq ? 1 : 0);
  const int64_t strip_bytes = columns * 4 * bits;
  for (int64_t s = strips.begin; s < strips.end; ++s) {
    const int64_t n = s * kStripRows;
    const int64_t rows = w.rows - n < kStripRows ? w.rows - n : kStripRows;
    const int64_t values = s * groups * kStripRows;
    const int64_t left = (strips.end - 1 - s) * strip_bytes;
    const StripView view{w.codes + s * strip_bytes,
                         w.scales + values,
                         w.grid == Grid::kAsym ? w.zeros + values : nullptr,
                         columns,
                         w.group,
                         zero2,
                         left < kPrefetchBytes ? left : kPrefetchBytes};
    int64_t t = 0;
    for (; t + 4 <= x.tokens; t += 4) run_halves<bits, 4>(view, x, t, rows, y + n, ldy);
    const int64_t tokens = x.tokens - t;
    if (tokens == 3) run_halves<bits, 3>(view, x, t, rows, y + n, ldy);
    if (tokens == 2) run_tile<bits, 2, 4>(view, x, t, rows, y + n, ldy);
    if (tokens == 1) run_tile<bits, 1, 4>(view, x, t, rows, y + n, ldy);
  }
}

}  // namespace

void matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
            int64_t ldy) noexcept {
  switch (w.bits) {
    case 2:
      return matmul_bits<2>(w, x, strips, y, ldy);
    case 3:
      return matmul_bits<3>(w, x, strips, y, ldy);
    case 4:
      return matmul_bits<4>(w, x, strips, y, ldy);
    default:
      return matmul_bits<8>(w, x, strips, y, ldy);
  }
}

}  // namespace crumb::kernels::avx2

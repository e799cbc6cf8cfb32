// Packed weights times int8 activations with AVX2 (no VNNI): vpmaddubsw multiplies unsigned codes
// by signed activations and adds pairs into int16, which saturates; every sum below is kept in
// range.
//   code <= 3:  2 *  3 * 127 =   762 a product pair
//   code <= 7:  2 *  7 * 127 =  1778
//   code <= 15: 2 * 15 * 127 =  3810, so 8 sums fit int16 (30480)
// The int16 sums are widened by vpmaddwd with twos: it adds pairs and gives the factor 2 of
// 2 * sum(code * q) for nothing. INT8 codes do not fit this way, see add_block<8>.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx2.h"
#include "kernels/avx2_tile.h"
#include "kernels/backend.h"
#include "kernels/layout.h"

namespace crumb::kernels::avx2 {
namespace {

// sum += products of unsigned codes and signed activations. The empty asm keeps the addition where
// it is: gcc would otherwise do all products of a block first and spill them (half the speed).
[[gnu::always_inline]] inline void add_products(__m256i& sum, __m256i codes, __m256i x) {
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
  asm("" : "+x"(sum));
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

struct Dot {
  static constexpr int kTokens = 4, kWideTokens = 2;
  static constexpr int32_t kInt8Offset = 256;
  template <int bits, int tokens, int vectors>
  [[gnu::always_inline]] static void add_columns(const uint8_t* codes, int64_t ahead,
                                                 const int8_t* q, int64_t stride, int64_t columns,
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
};

}  // namespace

void matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
            int64_t ldy) noexcept {
  matmul_by<Dot>(w, x, strips, y, ldy);
}

}  // namespace crumb::kernels::avx2

// The table for CPUs with AVX-VNNI and no AVX-512 (Alder Lake on): avx2 with another matmul.
// vpdpbusd adds four products of unsigned codes and signed activations into each 32-bit lane, and a
// lane is a row, so nothing is ever shuffled or summed across lanes.
//
// One token keeps its 8 registers of sums busy with masked codes that are not shifted: a field at
// bit position p counts 2^p times, has sums of its own, and is shifted back once a group, which is
// exact as every product in it is a multiple of 2^p.
//
// No partial sum leaves int32. The worst lane is INT8, 255 * 127 * K <= 1.07e9 for K <= 32768; of
// the unshifted fields INT4's high one with the zero point, 240 * 127 * K / 2 + 8 * 16 * 127 * K
// <= 1.04e9. Doubling INT8 and the zero
// point may wrap on the way, but the result fits (layout.h) and wrapping sums are exact then.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx2.h"
#include "kernels/avx2_tile.h"
#include "kernels/backend.h"
#include "kernels/layout.h"

namespace crumb::kernels {

extern const Backend kAvxVnni;

namespace avx2 {
namespace {

[[gnu::always_inline]] inline __m256i byte_mask(unsigned value) {
  return _mm256_set1_epi8(static_cast<char>(value));
}

// Sums of 8 * n rows.
template <int n>
struct Sums {
  __m256i v[n];
  Sums() {
    for (int r = 0; r < n; ++r) v[r] = _mm256_setzero_si256();
  }
};

// sum += products of codes and activations; the empty asm keeps gcc from copying the sums.
[[gnu::always_inline]] inline void add_dot(__m256i& sum, __m256i codes, __m256i x) {
  sum = _mm256_dpbusd_avx_epi32(sum, codes, x);
  asm("" : "+x"(sum));
}

template <int n>
[[gnu::always_inline]] inline void add_masked(Sums<n>& sums, const Sums<n>& v, __m256i mask,
                                              __m256i x) {
  for (int r = 0; r < n; ++r) add_dot(sums.v[r], _mm256_and_si256(v.v[r], mask), x);
}

template <int n>
[[gnu::always_inline]] inline Sums<n> load_codes(const uint8_t* codes) {
  Sums<n> v;
  for (int r = 0; r < n; ++r) v.v[r] = load(codes + 32 * r);
  return v;
}

// acc moves into sums that count 2^-by of it, where it needs no addition of its own.
template <int by>
[[gnu::always_inline]] inline Sums<4> taken(__m256i* acc) {
  Sums<4> sums;
  for (int r = 0; r < 4; ++r) {
    sums.v[r] = _mm256_slli_epi32(acc[r], by);
    acc[r] = _mm256_setzero_si256();
  }
  return sums;
}

// acc += sums * 2^by.
template <int by, int n>
[[gnu::always_inline]] inline void add_scaled(__m256i* acc, const Sums<n>& sums) {
  for (int r = 0; r < n; ++r) {
    const __m256i v = by < 0 ? _mm256_srai_epi32(sums.v[r], by < 0 ? -by : 0)
                             : _mm256_slli_epi32(sums.v[r], by < 0 ? 0 : by);
    acc[r] = _mm256_add_epi32(acc[r], v);
  }
}

// acc [2] += twice the products of 16 rows and `columns` columns; half 0 prefetches for both.
template <int half>
[[gnu::always_inline]] inline void add_int2(const uint8_t* codes, int64_t ahead, const int8_t* q,
                                            int64_t columns, __m256i* acc) {
  const __m256i mask0 = byte_mask(0x03), mask1 = byte_mask(0x0c);
  const __m256i mask2 = byte_mask(0x30), mask3 = byte_mask(0xc0);
  Sums<2> sum0, sum1, sum2, sum3;
  for (int64_t k = 0; k < columns; k += 16, codes += 128) {
    if constexpr (half == 0) prefetch<128>(codes + ahead);
    const Sums<2> v = load_codes<2>(codes + 64 * half);
    add_masked(sum0, v, mask0, broadcast4(q + k));
    add_masked(sum1, v, mask1, broadcast4(q + k + 4));
    add_masked(sum2, v, mask2, broadcast4(q + k + 8));
    add_masked(sum3, v, mask3, broadcast4(q + k + 12));
  }
  add_scaled<1>(acc, sum0);
  add_scaled<-1>(acc, sum1);
  add_scaled<-3>(acc, sum2);
  add_scaled<-5>(acc, sum3);
}

// acc [4] likewise for a whole strip: two fields shifted and half the sums to merge, which is
// better for few columns.
[[gnu::always_inline]] inline void add_short_int2(const uint8_t* codes, int64_t ahead,
                                                  const int8_t* q, int64_t columns, __m256i* acc) {
  const __m256i mask0 = byte_mask(0x03), mask1 = byte_mask(0x0c);
  Sums<4> ones, fours = taken<1>(acc);
  for (int64_t k = 0; k < columns; k += 16, codes += 128) {
    prefetch<128>(codes + ahead);
    const __m256i x0 = broadcast4(q + k), x1 = broadcast4(q + k + 4);
    const __m256i x2 = broadcast4(q + k + 8), x3 = broadcast4(q + k + 12);
    for (int r = 0; r < 4; ++r) {
      const __m256i v = load(codes + 32 * r);
      const __m256i u = _mm256_srli_epi16(v, 4);
      add_dot(ones.v[r], _mm256_and_si256(v, mask0), x0);
      add_dot(fours.v[r], _mm256_and_si256(v, mask1), x1);
      add_dot(ones.v[r], _mm256_and_si256(u, mask0), x2);
      add_dot(fours.v[r], _mm256_and_si256(u, mask1), x3);
    }
  }
  add_scaled<1>(acc, ones);
  add_scaled<-1>(acc, fours);
}

// A high bit counts 4. Bits 2, 4, 6 of the third part do so unshifted in the sums 0, 1, 2 (which
// count 1, 4, 16); the odd bits are moved onto the even ones, and bit 0 needs a sum that counts
// 1/4.
template <int half>
[[gnu::always_inline]] inline void add_int3(const uint8_t* codes, int64_t ahead, const int8_t* q,
                                            int64_t columns, __m256i* acc) {
  Sums<2> sum0, sum1, sum2, sum3, quarter;
  for (int64_t k = 0; k < columns; k += 32, codes += 384) {
    if constexpr (half == 0) prefetch<384>(codes + ahead);
    const Sums<2> even = load_codes<2>(codes + 256 + 64 * half);
    Sums<2> odd;
    for (int r = 0; r < 2; ++r) odd.v[r] = _mm256_srli_epi16(even.v[r], 1);
    Sums<2> v = load_codes<2>(codes + 64 * half);
    const auto field = [&](int f, Sums<2>& low, unsigned mask, Sums<2>& high, unsigned bit) {
      const __m256i x = broadcast4(q + k + 4 * f);
      add_masked(low, v, byte_mask(mask), x);
      add_masked(high, f % 2 == 0 ? even : odd, byte_mask(bit), x);
    };
    field(0, sum0, 0x03, quarter, 0x01);
    field(1, sum1, 0x0c, quarter, 0x01);
    field(2, sum2, 0x30, sum0, 0x04);
    field(3, sum3, 0xc0, sum0, 0x04);
    v = load_codes<2>(codes + 128 + 64 * half);
    field(4, sum0, 0x03, sum1, 0x10);
    field(5, sum1, 0x0c, sum1, 0x10);
    field(6, sum2, 0x30, sum2, 0x40);
    field(7, sum3, 0xc0, sum2, 0x40);
  }
  add_scaled<3>(acc, quarter);
  add_scaled<1>(acc, sum0);
  add_scaled<-1>(acc, sum1);
  add_scaled<-3>(acc, sum2);
  add_scaled<-5>(acc, sum3);
}

// acc [4] likewise, of a whole strip.
[[gnu::always_inline]] inline void add_int4(const uint8_t* codes, int64_t ahead, const int8_t* q,
                                            int64_t columns, __m256i* acc) {
  const __m256i low = byte_mask(0x0f), high = byte_mask(0xf0);
  Sums<4> ones, sixteens = taken<3>(acc);
  for (int64_t k = 0; k < columns; k += 8, codes += 128) {
    prefetch<128>(codes + ahead);
    const __m256i x0 = broadcast4(q + k), x1 = broadcast4(q + k + 4);
    for (int r = 0; r < 4; ++r) {
      const __m256i v = load(codes + 32 * r);
      add_dot(ones.v[r], _mm256_and_si256(v, low), x0);
      add_dot(sixteens.v[r], _mm256_and_si256(v, high), x1);
    }
  }
  add_scaled<1>(acc, ones);
  add_scaled<-3>(acc, sixteens);
}

[[gnu::always_inline]] inline void add_int8(const uint8_t* codes, int64_t ahead, const int8_t* q,
                                            int64_t columns, __m256i* acc) {
  Sums<4> even, odd;
  for (int64_t k = 0; k < columns; k += 8, codes += 256) {
    prefetch<256>(codes + ahead);
    const __m256i x0 = broadcast4(q + k), x1 = broadcast4(q + k + 4);
    for (int r = 0; r < 4; ++r) {
      add_dot(even.v[r], load(codes + 32 * r), x0);
      add_dot(odd.v[r], load(codes + 128 + 32 * r), x1);
    }
  }
  for (int r = 0; r < 4; ++r) even.v[r] = _mm256_add_epi32(even.v[r], odd.v[r]);
  add_scaled<1>(acc, even);
}

// Half strips leave registers for more sums; so that the codes are read once, they take turns.
constexpr int64_t kTurn = 512;

template <int bits>
[[gnu::always_inline]] inline void add_halves(const uint8_t* codes, int64_t ahead, const int8_t* q,
                                              int64_t columns, __m256i* acc) {
  if (bits == 2 && columns <= 64) return add_short_int2(codes, ahead, q, columns, acc);
  for (int64_t k = 0; k < columns; k += kTurn, codes += kTurn * 4 * bits, q += kTurn) {
    const int64_t turn = columns - k < kTurn ? columns - k : kTurn;
    if constexpr (bits == 2) {
      add_int2<0>(codes, ahead, q, turn, acc);
      add_int2<1>(codes, ahead, q, turn, acc + 2);
    } else {
      add_int3<0>(codes, ahead, q, turn, acc);
      add_int3<1>(codes, ahead, q, turn, acc + 2);
    }
  }
}

template <int bits>
[[gnu::always_inline]] inline void add_one(const uint8_t* codes, int64_t ahead, const int8_t* q,
                                           int64_t columns, __m256i* acc) {
  if constexpr (bits == 4) {
    add_int4(codes, ahead, q, columns, acc);
  } else if constexpr (bits == 8) {
    add_int8(codes, ahead, q, columns, acc);
  } else {
    add_halves<bits>(codes, ahead, q, columns, acc);
  }
}

// Fields f .. 7 of a block, for many tokens.
template <int bits, int tokens, int vectors, int f = 0>
[[gnu::always_inline]] inline void add_block(const uint8_t* block, const int8_t* q, int64_t stride,
                                             Tile<tokens, vectors>& sums) {
  __m256i codes[vectors];
  for (int r = 0; r < vectors; ++r) codes[r] = unpack<bits, f>(block + 32 * r);
  for (int t = 0; t < tokens; ++t) {
    const __m256i x = broadcast4(q + t * stride + 4 * f);
    for (int r = 0; r < vectors; ++r) {
      sums.v[t][r] = _mm256_dpbusd_avx_epi32(sums.v[t][r], codes[r], x);
    }
  }
  if constexpr (f + 1 < kFields) add_block<bits, tokens, vectors, f + 1>(block, q, stride, sums);
}

struct VnniDot {
  static constexpr int kTokens = 6, kWideTokens = 3;
  static constexpr int32_t kInt8Offset = 0;

  template <int bits, int tokens, int vectors>
  [[gnu::always_inline]] static void add_columns(const uint8_t* codes, int64_t ahead,
                                                 const int8_t* q, int64_t stride, int64_t columns,
                                                 Tile<tokens, vectors>& acc) {
    if constexpr (tokens == 1) return add_one<bits>(codes, ahead, q, columns, acc.v[0]);
    Tile<tokens, vectors> sums;
    clear(sums);
    for (int64_t k = 0; k < columns; k += kColumnAlign) {
      add_block<bits>(codes + k * 4 * bits, q + k, stride, sums);
    }
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < vectors; ++r) {
        const __m256i twice = _mm256_add_epi32(sums.v[t][r], sums.v[t][r]);
        acc.v[t][r] = _mm256_add_epi32(acc.v[t][r], twice);
      }
    }
  }
};

void avxvnni_matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                    int64_t ldy) noexcept {
  matmul_by<VnniDot>(w, x, strips, y, ldy);
}

}  // namespace
}  // namespace avx2

constinit const Backend kAvxVnni = {
    "avxvnni",    avx2::avxvnni_matmul, avx2::matmul_f32, avx2::quantize_row, avx2::rmsnorm,
    avx2::rope,   avx2::silu_mul,       avx2::gelu_mul,   avx2::hadamard,     avx2::attend,
    avx2::to_f16, avx2::to_i8,          avx2::argmax};

}  // namespace crumb::kernels

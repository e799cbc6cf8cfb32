// Packed weights times int8 activations by vpdpbusd: u8 codes x s8 activations, four products added
// into each 32-bit lane, and a lane is a row, so nothing is ever shuffled or summed across lanes.
//
// One strip is two registers of 16 rows, so that each broadcast of four activations serves both.
// Decoding (T = 1) feeds masked but unshifted fields to vpdpbusd: a field at bit position p counts
// 2^p times, has an accumulator of its own, and is shifted back once per group, which is exact as
// every product in it is a multiple of 2^p. A prompt unpacks into a panel of bytes instead
// (avx512vnni_gemm.cpp), which costs as much as two tokens.
//
// No partial sum leaves int32. The worst lane is INT8, 255 * 127 * K <= 1.07e9 for K <= 32768; of
// the unshifted fields INT4's high one, 240 * 127 * K / 2 <= 5.0e8. Doubling INT8 and subtracting
// zero2 * sum may wrap on the way, but the result fits (layout.h) and wrapping sums are exact then.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni.h"
#include "kernels/avx512vnni_strip.h"
#include "kernels/backend.h"
#include "kernels/layout.h"

namespace crumb::kernels {
namespace {

[[gnu::always_inline]] inline Ints load_ahead(const uint8_t* codes, int64_t ahead) noexcept {
  _mm_prefetch(codes + ahead, _MM_HINT_T0);
  _mm_prefetch(codes + ahead + kRegisterBytes, _MM_HINT_T0);
  return load(codes);
}

// Twice the dot product of `columns` codes and activations of one token, columns a multiple of 32.
// Each keeps at least 8 registers of sums, since vpdpbusd takes 4 to 5 cycles.
[[gnu::always_inline]] inline Ints twice_dot_int2(const uint8_t* codes, const int8_t* q,
                                                  int64_t columns, int64_t ahead) noexcept {
  const __m512i mask0 = byte_mask(0x03), mask1 = byte_mask(0x0c);
  const __m512i mask2 = byte_mask(0x30), mask3 = byte_mask(0xc0);
  Ints sum0 = zero(), sum1 = zero(), sum2 = zero(), sum3 = zero();
  for (int64_t k = 0; k < columns; k += 16, codes += kStepBytes) {
    const Ints v = load_ahead(codes, ahead);
    add_dots(sum0, masked(v, mask0), broadcast4(q + k));
    add_dots(sum1, masked(v, mask1), broadcast4(q + k + 4));
    add_dots(sum2, masked(v, mask2), broadcast4(q + k + 8));
    add_dots(sum3, masked(v, mask3), broadcast4(q + k + 12));
  }
  return plus(plus(plus(sum0, sum0), shifted_back<1>(sum1)),
              plus(shifted_back<3>(sum2), shifted_back<5>(sum3)));
}

// A high bit counts 4. Bits 2, 4, 6 of the third part do so unshifted in the sums 0, 1, 2 (which
// count 1, 4, 16); the odd bits are moved onto the even ones, and bit 0 needs a sum that counts
// 1/4.
[[gnu::always_inline]] inline Ints twice_dot_int3(const uint8_t* codes, const int8_t* q,
                                                  int64_t columns, int64_t ahead) noexcept {
  const __m512i mask0 = byte_mask(0x03), mask1 = byte_mask(0x0c);
  const __m512i mask2 = byte_mask(0x30), mask3 = byte_mask(0xc0);
  const __m512i bit0 = byte_mask(0x01), bit2 = byte_mask(0x04);
  const __m512i bit4 = byte_mask(0x10), bit6 = byte_mask(0x40);
  Ints sum0 = zero(), sum1 = zero(), sum2 = zero(), sum3 = zero(), quarter = zero();
  for (int64_t k = 0; k < columns; k += 32, codes += 3 * kStepBytes, q += 32) {
    const Ints v = load_ahead(codes, ahead);
    const Ints even = load_ahead(codes + 2 * kStepBytes, ahead);
    const Ints odd = shifted_right<1>(even);
    __m512i x = broadcast4(q);
    add_dots(sum0, masked(v, mask0), x);
    add_dots(quarter, masked(even, bit0), x);
    x = broadcast4(q + 4);
    add_dots(sum1, masked(v, mask1), x);
    add_dots(quarter, masked(odd, bit0), x);
    x = broadcast4(q + 8);
    add_dots(sum2, masked(v, mask2), x);
    add_dots(sum0, masked(even, bit2), x);
    x = broadcast4(q + 12);
    add_dots(sum3, masked(v, mask3), x);
    add_dots(sum0, masked(odd, bit2), x);
    const Ints u = load_ahead(codes + kStepBytes, ahead);
    x = broadcast4(q + 16);
    add_dots(sum0, masked(u, mask0), x);
    add_dots(sum1, masked(even, bit4), x);
    x = broadcast4(q + 20);
    add_dots(sum1, masked(u, mask1), x);
    add_dots(sum1, masked(odd, bit4), x);
    x = broadcast4(q + 24);
    add_dots(sum2, masked(u, mask2), x);
    add_dots(sum2, masked(even, bit6), x);
    x = broadcast4(q + 28);
    add_dots(sum3, masked(u, mask3), x);
    add_dots(sum2, masked(odd, bit6), x);
  }
  const Ints twice = plus(plus(quarter, quarter), plus(quarter, quarter));
  const Ints ones = plus(sum0, plus(twice, shifted_back<2>(sum1)));
  return plus(plus(ones, ones), plus(shifted_back<3>(sum2), shifted_back<5>(sum3)));
}

[[gnu::always_inline]] inline Ints twice_dot_int4(const uint8_t* codes, const int8_t* q,
                                                  int64_t columns, int64_t ahead) noexcept {
  const __m512i low = byte_mask(0x0f), high = byte_mask(0xf0);
  Ints sum0 = zero(), sum1 = zero(), sum2 = zero(), sum3 = zero();
  for (int64_t k = 0; k < columns; k += 16, codes += 2 * kStepBytes) {
    const Ints v = load_ahead(codes, ahead);
    add_dots(sum0, masked(v, low), broadcast4(q + k));
    add_dots(sum1, masked(v, high), broadcast4(q + k + 4));
    const Ints u = load_ahead(codes + kStepBytes, ahead);
    add_dots(sum2, masked(u, low), broadcast4(q + k + 8));
    add_dots(sum3, masked(u, high), broadcast4(q + k + 12));
  }
  const Ints ones = plus(sum0, sum2);
  return plus(plus(ones, ones), shifted_back<3>(plus(sum1, sum3)));
}

[[gnu::always_inline]] inline Ints twice_dot_int8(const uint8_t* codes, const int8_t* q,
                                                  int64_t columns, int64_t ahead) noexcept {
  Ints sum0 = zero(), sum1 = zero(), sum2 = zero(), sum3 = zero();
  for (int64_t k = 0; k < columns; k += 16, codes += 4 * kStepBytes) {
    add_dots(sum0, load_ahead(codes, ahead), broadcast4(q + k));
    add_dots(sum1, load_ahead(codes + kStepBytes, ahead), broadcast4(q + k + 4));
    add_dots(sum2, load_ahead(codes + 2 * kStepBytes, ahead), broadcast4(q + k + 8));
    add_dots(sum3, load_ahead(codes + 3 * kStepBytes, ahead), broadcast4(q + k + 12));
  }
  const Ints ones = plus(plus(sum0, sum1), plus(sum2, sum3));
  return plus(ones, ones);
}

template <int kBits>
[[gnu::always_inline]] inline Ints twice_dot(const uint8_t* codes, const int8_t* q, int64_t columns,
                                             int64_t ahead) noexcept {
  if constexpr (kBits == 2) return twice_dot_int2(codes, q, columns, ahead);
  if constexpr (kBits == 3) return twice_dot_int3(codes, q, columns, ahead);
  if constexpr (kBits == 4) return twice_dot_int4(codes, q, columns, ahead);
  if constexpr (kBits == 8) return twice_dot_int8(codes, q, columns, ahead);
}

// One strip, one token. kGroup columns share an activation scale; 0 is any other number, x.group.
template <int kBits, int64_t kGroup>
void strip_gemv(const Strip& strip, const QuantizedRows& x, float* y) noexcept {
  const int64_t group = kGroup != 0 ? kGroup : x.group;
  Floats f = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  int64_t a = 0;
  int64_t first = 0;
  for (; first + group <= strip.columns; ++a, first += group) {
    const Ints twice =
        twice_dot<kBits>(strip.codes + first * 4 * kBits, x.q + first, group, strip.ahead);
    add_group(f, twice, strip, group_at(strip, first), x.sums[a], 0.5f * x.scales[a]);
  }
  if (first < strip.columns) {
    const Ints twice = twice_dot<kBits>(strip.codes + first * 4 * kBits, x.q + first,
                                        strip.columns - first, strip.ahead);
    add_group(f, twice, strip, group_at(strip, first), x.sums[a], 0.5f * x.scales[a]);
  }
  store(y, f, strip);
}

template <int kBits>
void gemv(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y) noexcept {
  const int64_t end = end_of(w, strips);
  for (int64_t s = strips.begin; s < end; ++s) {
    const Strip strip = strip_of(w, s, end);
    if (x.group == 64) {
      strip_gemv<kBits, 64>(strip, x, y + s * kStripRows);
    } else if (x.group == 32) {
      strip_gemv<kBits, 32>(strip, x, y + s * kStripRows);
    } else {
      strip_gemv<kBits, 0>(strip, x, y + s * kStripRows);
    }
  }
}

}  // namespace

void avx512vnni_matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                       int64_t ldy) noexcept {
  if (x.tokens > 1) return avx512vnni_gemm(w, x, strips, y, ldy);
  switch (w.bits) {
    case 2:
      return gemv<2>(w, x, strips, y);
    case 3:
      return gemv<3>(w, x, strips, y);
    case 4:
      return gemv<4>(w, x, strips, y);
    default:
      return gemv<8>(w, x, strips, y);
  }
}

}  // namespace crumb::kernels

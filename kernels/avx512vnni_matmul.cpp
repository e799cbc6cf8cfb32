// Packed weights times int8 activations by vpdpbusd: u8 codes x s8 activations, four products added
// into each 32-bit lane, and a lane is a row, so nothing is ever shuffled or summed across lanes.
//
// One strip is two registers of 16 rows, so that each broadcast of four activations serves both.
// Decoding (T = 1) feeds masked but unshifted fields to vpdpbusd: a field at bit position p counts
// 2^p times, has an accumulator of its own, and is shifted back once per group, which is exact as
// every product in it is a multiple of 2^p. Prefill shares the unpacking between up to 8 tokens, so
// there shifts are cheap and accumulators dear.
//
// No partial sum leaves int32. The worst lane is INT8, 255 * 127 * K <= 1.07e9 for K <= 32768; of
// the unshifted fields INT4's high one, 240 * 127 * K / 2 <= 5.0e8. Doubling INT8 and subtracting
// zero2 * sum may wrap on the way, but the result fits (layout.h) and wrapping sums are exact then.
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni.h"
#include "kernels/backend.h"
#include "kernels/layout.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kRegisterBytes = 64;
constexpr int64_t kStepBytes = 2 * kRegisterBytes;
// Tokens that share one unpacking: 2 accumulators each, and the weights' and activations'
// registers.
constexpr int64_t kMaxBlock = 8;

// One value for each of the 32 rows of a strip.
struct Ints {
  __m512i low, high;
};
struct Floats {
  __m512 low, high;
};

// One strip's part of a packed matrix, and what its groups look like.
struct Strip {
  const uint8_t* codes;
  const uint16_t* scales;  // [groups, 32]
  const uint8_t* zeros;    // [groups, 32] or null
  int64_t columns;         // K rounded up to 32
  int group_shift;         // column k is in group k >> group_shift
  int32_t zero2;           // of a grid without stored zeros
  __mmask16 low_rows, high_rows;
};

[[gnu::always_inline]] inline Ints load(const uint8_t* codes) noexcept {
  return {_mm512_load_si512(codes), _mm512_load_si512(codes + kRegisterBytes)};
}

[[gnu::always_inline]] inline __m512i broadcast4(const int8_t* q) noexcept {
  int32_t four = 0;
  __builtin_memcpy(&four, q, sizeof(four));
  return _mm512_set1_epi32(four);
}

[[gnu::always_inline]] inline void add_dots(Ints& sum, Ints codes, __m512i x) noexcept {
  sum.low = _mm512_dpbusd_epi32(sum.low, codes.low, x);
  sum.high = _mm512_dpbusd_epi32(sum.high, codes.high, x);
}

[[gnu::always_inline]] inline Ints masked(Ints v, __m512i mask) noexcept {
  return {_mm512_and_si512(v.low, mask), _mm512_and_si512(v.high, mask)};
}

[[gnu::always_inline]] inline Ints plus(Ints a, Ints b) noexcept {
  return {_mm512_add_epi32(a.low, b.low), _mm512_add_epi32(a.high, b.high)};
}

template <int kBy>
[[gnu::always_inline]] inline Ints shifted_back(Ints v) noexcept {
  return {_mm512_srai_epi32(v.low, kBy), _mm512_srai_epi32(v.high, kBy)};
}

template <int kBy>
[[gnu::always_inline]] inline Ints shifted_right(Ints v) noexcept {
  return {_mm512_srli_epi16(v.low, kBy), _mm512_srli_epi16(v.high, kBy)};
}

template <int kBy>
[[gnu::always_inline]] inline Ints shifted_left(Ints v) noexcept {
  return {_mm512_slli_epi16(v.low, kBy), _mm512_slli_epi16(v.high, kBy)};
}

[[gnu::always_inline]] inline Ints zero() noexcept {
  return {_mm512_setzero_si512(), _mm512_setzero_si512()};
}

[[gnu::always_inline]] inline __m512i byte_mask(unsigned value) noexcept {
  return _mm512_set1_epi8(static_cast<char>(value));
}

// Twice the dot product of `columns` codes and activations of one token, columns a multiple of 32.
// Each keeps at least 8 registers of sums, since vpdpbusd takes 4 to 5 cycles.
[[gnu::always_inline]] inline Ints twice_dot_int2(const uint8_t* codes, const int8_t* q,
                                                  int64_t columns) noexcept {
  const __m512i mask0 = byte_mask(0x03), mask1 = byte_mask(0x0c);
  const __m512i mask2 = byte_mask(0x30), mask3 = byte_mask(0xc0);
  Ints sum0 = zero(), sum1 = zero(), sum2 = zero(), sum3 = zero();
  for (int64_t k = 0; k < columns; k += 16, codes += kStepBytes) {
    const Ints v = load(codes);
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
                                                  int64_t columns) noexcept {
  const __m512i mask0 = byte_mask(0x03), mask1 = byte_mask(0x0c);
  const __m512i mask2 = byte_mask(0x30), mask3 = byte_mask(0xc0);
  const __m512i bit0 = byte_mask(0x01), bit2 = byte_mask(0x04);
  const __m512i bit4 = byte_mask(0x10), bit6 = byte_mask(0x40);
  Ints sum0 = zero(), sum1 = zero(), sum2 = zero(), sum3 = zero(), quarter = zero();
  for (int64_t k = 0; k < columns; k += 32, codes += 3 * kStepBytes, q += 32) {
    const Ints v = load(codes);
    const Ints even = load(codes + 2 * kStepBytes);
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
    const Ints u = load(codes + kStepBytes);
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
                                                  int64_t columns) noexcept {
  const __m512i low = byte_mask(0x0f), high = byte_mask(0xf0);
  Ints sum0 = zero(), sum1 = zero(), sum2 = zero(), sum3 = zero();
  for (int64_t k = 0; k < columns; k += 16, codes += 2 * kStepBytes) {
    const Ints v = load(codes);
    add_dots(sum0, masked(v, low), broadcast4(q + k));
    add_dots(sum1, masked(v, high), broadcast4(q + k + 4));
    const Ints u = load(codes + kStepBytes);
    add_dots(sum2, masked(u, low), broadcast4(q + k + 8));
    add_dots(sum3, masked(u, high), broadcast4(q + k + 12));
  }
  const Ints ones = plus(sum0, sum2);
  return plus(plus(ones, ones), shifted_back<3>(plus(sum1, sum3)));
}

[[gnu::always_inline]] inline Ints twice_dot_int8(const uint8_t* codes, const int8_t* q,
                                                  int64_t columns) noexcept {
  Ints sum0 = zero(), sum1 = zero(), sum2 = zero(), sum3 = zero();
  for (int64_t k = 0; k < columns; k += 16, codes += 4 * kStepBytes) {
    add_dots(sum0, load(codes), broadcast4(q + k));
    add_dots(sum1, load(codes + kStepBytes), broadcast4(q + k + 4));
    add_dots(sum2, load(codes + 2 * kStepBytes), broadcast4(q + k + 8));
    add_dots(sum3, load(codes + 3 * kStepBytes), broadcast4(q + k + 12));
  }
  const Ints ones = plus(plus(sum0, sum1), plus(sum2, sum3));
  return plus(ones, ones);
}

template <int kBits>
[[gnu::always_inline]] inline Ints twice_dot(const uint8_t* codes, const int8_t* q,
                                             int64_t columns) noexcept {
  if constexpr (kBits == 2) return twice_dot_int2(codes, q, columns);
  if constexpr (kBits == 3) return twice_dot_int3(codes, q, columns);
  if constexpr (kBits == 4) return twice_dot_int4(codes, q, columns);
  if constexpr (kBits == 8) return twice_dot_int8(codes, q, columns);
}

// f = fma(float(twice - zero2 * sum), (scale / 2) * activation scale, f), with the half taken from
// the activation scale: exact as well (QuantizedRows), and the products round alike.
[[gnu::always_inline]] inline void add_group(Floats& f, Ints twice, const Strip& strip,
                                             int64_t first, int32_t sum, float half) noexcept {
  const int64_t g = (first >> strip.group_shift) * kStripRows;
  if (strip.zeros != nullptr) {
    const auto* zeros = reinterpret_cast<const __m128i*>(strip.zeros + g);
    const __m512i twice_sum = _mm512_set1_epi32(2 * sum);
    const __m512i low = _mm512_cvtepu8_epi32(_mm_loadu_si128(zeros));
    const __m512i high = _mm512_cvtepu8_epi32(_mm_loadu_si128(zeros + 1));
    twice.low = _mm512_sub_epi32(twice.low, _mm512_mullo_epi32(low, twice_sum));
    twice.high = _mm512_sub_epi32(twice.high, _mm512_mullo_epi32(high, twice_sum));
  } else {
    const __m512i zero = _mm512_set1_epi32(strip.zero2 * sum);
    twice.low = _mm512_sub_epi32(twice.low, zero);
    twice.high = _mm512_sub_epi32(twice.high, zero);
  }
  const auto* scales = reinterpret_cast<const __m256i*>(strip.scales + g);
  const __m512 x_scale = _mm512_set1_ps(half);
  const __m512 low = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256(scales)), x_scale);
  const __m512 high = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256(scales + 1)), x_scale);
  f.low = _mm512_fmadd_ps(_mm512_cvtepi32_ps(twice.low), low, f.low);
  f.high = _mm512_fmadd_ps(_mm512_cvtepi32_ps(twice.high), high, f.high);
}

[[gnu::always_inline]] inline void store(float* y, Floats f, const Strip& strip) noexcept {
  _mm512_mask_storeu_ps(y, strip.low_rows, f.low);
  _mm512_mask_storeu_ps(y + kZmmLanes, strip.high_rows, f.high);
}

// One strip, token t. kGroup columns share an activation scale; 0 is any other number, x.group.
template <int kBits, int64_t kGroup>
void strip_gemv(const Strip& strip, const QuantizedRows& x, int64_t t, float* y) noexcept {
  const int8_t* q = x.q + t * x.stride;
  const float* scales = x.scales + t * x.groups;
  const int32_t* sums = x.sums + t * x.groups;
  const int64_t group = kGroup != 0 ? kGroup : x.group;
  Floats f = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  int64_t a = 0;
  int64_t first = 0;
  for (; first + group <= strip.columns; ++a, first += group) {
    const Ints twice = twice_dot<kBits>(strip.codes + first * 4 * kBits, q + first, group);
    add_group(f, twice, strip, first, sums[a], 0.5f * scales[a]);
  }
  if (first < strip.columns) {
    const Ints twice =
        twice_dot<kBits>(strip.codes + first * 4 * kBits, q + first, strip.columns - first);
    add_group(f, twice, strip, first, sums[a], 0.5f * scales[a]);
  }
  store(y, f, strip);
}

// The runs of columns that one unpacking step covers, four columns a field.
template <int kBits>
constexpr int kFields = kBits == 3 ? 8 : 8 / kBits;

// Field kField of the step at `codes`: four codes a lane, a byte each.
template <int kBits, int kField>
[[gnu::always_inline]] inline Ints unpack(const uint8_t* codes) noexcept {
  if constexpr (kBits == 8) {
    return load(codes);
  } else if constexpr (kBits == 3) {
    const __m512i bit = byte_mask(0x04);
    const Ints low = unpack<2, kField % 4>(codes + kField / 4 * kStepBytes);
    const Ints bits = load(codes + 2 * kStepBytes);
    Ints high = {};
    if constexpr (kField < 2) high = masked(shifted_left<2 - kField>(bits), bit);
    if constexpr (kField >= 2) high = masked(shifted_right<kField - 2>(bits), bit);
    return {_mm512_or_si512(low.low, high.low), _mm512_or_si512(low.high, high.high)};
  } else {
    return masked(shifted_right<kField * kBits>(load(codes)), byte_mask((1u << kBits) - 1u));
  }
}

template <int kBits, int kTokens, int kField>
[[gnu::always_inline]] inline void add_fields(Ints (&sums)[kTokens], const uint8_t* codes,
                                              const int8_t* q, int64_t stride) noexcept {
  const Ints field = unpack<kBits, kField>(codes);
  for (int t = 0; t < kTokens; ++t) add_dots(sums[t], field, broadcast4(q + t * stride));
  if constexpr (kField + 1 < kFields<kBits>) {
    add_fields<kBits, kTokens, kField + 1>(sums, codes, q + 4, stride);
  }
}

// One strip, kTokens tokens from t on.
template <int kBits, int kTokens>
void strip_gemm(const Strip& strip, const QuantizedRows& x, int64_t t, float* y,
                int64_t ldy) noexcept {
  constexpr int64_t kColumns = 4 * kFields<kBits>;
  Floats f[kTokens];
  for (Floats& pair : f) pair = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  const uint8_t* codes = strip.codes;
  const int8_t* q = x.q + t * x.stride;
  for (int64_t a = 0; a < x.groups; ++a) {
    const int64_t first = a * x.group;
    const int64_t left = strip.columns - first;
    const int64_t columns = left < x.group ? left : x.group;
    Ints sums[kTokens];
    for (Ints& pair : sums) pair = zero();
    for (int64_t k = 0; k < columns; k += kColumns, codes += kColumns * 4 * kBits, q += kColumns) {
      add_fields<kBits, kTokens, 0>(sums, codes, q, x.stride);
    }
    for (int i = 0; i < kTokens; ++i) {
      const int64_t at = (t + i) * x.groups + a;
      add_group(f[i], plus(sums[i], sums[i]), strip, first, x.sums[at], 0.5f * x.scales[at]);
    }
  }
  for (int i = 0; i < kTokens; ++i) store(y + i * ldy, f[i], strip);
}

// All tokens of one strip: blocks of 8, then what is left in 4, 2 and 1.
template <int kBits>
void strip_tokens(const Strip& strip, const QuantizedRows& x, float* y, int64_t ldy) noexcept {
  int64_t t = 0;
  for (; t + kMaxBlock <= x.tokens; t += kMaxBlock) {
    strip_gemm<kBits, kMaxBlock>(strip, x, t, y + t * ldy, ldy);
  }
  if (x.tokens - t >= 4) {
    strip_gemm<kBits, 4>(strip, x, t, y + t * ldy, ldy);
    t += 4;
  }
  if (x.tokens - t >= 2) {
    strip_gemm<kBits, 2>(strip, x, t, y + t * ldy, ldy);
    t += 2;
  }
  if (t == x.tokens) return;
  if (x.group == 64) return strip_gemv<kBits, 64>(strip, x, t, y + t * ldy);
  if (x.group == 32) return strip_gemv<kBits, 32>(strip, x, t, y + t * ldy);
  strip_gemv<kBits, 0>(strip, x, t, y + t * ldy);
}

using StripFunction = void (*)(const Strip&, const QuantizedRows&, float*, int64_t);

StripFunction strip_function(int bits) noexcept {
  if (bits == 2) return strip_tokens<2>;
  if (bits == 3) return strip_tokens<3>;
  return bits == 4 ? strip_tokens<4> : strip_tokens<8>;
}

// A group of all columns is the only one whose length may be no power of two: then k >> 62 is 0.
int group_shift(const PackedMatrix& w) noexcept {
  return w.group == w.cols ? 62 : __builtin_ctzll(static_cast<uint64_t>(w.group));
}

int32_t stored_zero2(Grid grid, int bits) noexcept {
  const int32_t levels = 1 << bits;
  return grid == Grid::kSeq ? levels - 1 : levels;
}

}  // namespace

void avx512vnni_matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                       int64_t ldy) noexcept {
  const StripFunction run = strip_function(w.bits);
  const int64_t groups = (w.cols + w.group - 1) / w.group;
  const int64_t columns = (w.cols + kColumnAlign - 1) / kColumnAlign * kColumnAlign;
  const bool asym = w.grid == Grid::kAsym;
  for (int64_t s = strips.begin; s < strips.end; ++s) {
    const int64_t rows = w.rows - s * kStripRows;
    if (rows <= 0) return;
    const int64_t first_group = s * groups * kStripRows;
    const Strip strip = {w.codes + s * columns * 4 * w.bits,
                         w.scales + first_group,
                         asym ? w.zeros + first_group : nullptr,
                         columns,
                         group_shift(w),
                         stored_zero2(w.grid, w.bits),
                         first_lanes(rows),
                         first_lanes(rows - kZmmLanes)};
    run(strip, x, y + s * kStripRows, ldy);
  }
}

}  // namespace crumb::kernels

// One strip of 32 rows in two zmm registers: what the matmuls of the AVX-512 files share. All of it
// is always inlined.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni.h"
#include "kernels/backend.h"
#include "kernels/layout.h"

namespace crumb::kernels {

inline constexpr int64_t kRegisterBytes = 64;
inline constexpr int64_t kStepBytes = 2 * kRegisterBytes;
// Decoding prefetches the codes this far ahead: measured on Sapphire Rapids, the hardware's own
// prefetching of one stream reaches two thirds of what a core can read.
inline constexpr int64_t kPrefetchBytes = 8192;

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
  int64_t ahead;  // bytes from what is read to what is prefetched
};

[[gnu::always_inline]] static inline Ints load(const uint8_t* codes) noexcept {
  return {_mm512_load_si512(codes), _mm512_load_si512(codes + kRegisterBytes)};
}

[[gnu::always_inline]] static inline __m512i broadcast4(const int8_t* q) noexcept {
  int32_t four = 0;
  __builtin_memcpy(&four, q, sizeof(four));
  return _mm512_set1_epi32(four);
}

[[gnu::always_inline]] static inline void add_dots(Ints& sum, Ints codes, __m512i x) noexcept {
  sum.low = _mm512_dpbusd_epi32(sum.low, codes.low, x);
  sum.high = _mm512_dpbusd_epi32(sum.high, codes.high, x);
}

[[gnu::always_inline]] static inline Ints masked(Ints v, __m512i mask) noexcept {
  return {_mm512_and_si512(v.low, mask), _mm512_and_si512(v.high, mask)};
}

[[gnu::always_inline]] static inline Ints plus(Ints a, Ints b) noexcept {
  return {_mm512_add_epi32(a.low, b.low), _mm512_add_epi32(a.high, b.high)};
}

template <int kBy>
[[gnu::always_inline]] static inline Ints shifted_back(Ints v) noexcept {
  return {_mm512_srai_epi32(v.low, kBy), _mm512_srai_epi32(v.high, kBy)};
}

template <int kBy>
[[gnu::always_inline]] static inline Ints shifted_right(Ints v) noexcept {
  return {_mm512_srli_epi16(v.low, kBy), _mm512_srli_epi16(v.high, kBy)};
}

template <int kBy>
[[gnu::always_inline]] static inline Ints shifted_left(Ints v) noexcept {
  return {_mm512_slli_epi16(v.low, kBy), _mm512_slli_epi16(v.high, kBy)};
}

[[gnu::always_inline]] static inline Ints zero() noexcept {
  return {_mm512_setzero_si512(), _mm512_setzero_si512()};
}

[[gnu::always_inline]] static inline __m512i byte_mask(unsigned value) noexcept {
  return _mm512_set1_epi8(static_cast<char>(value));
}

// What a weight group needs after its integer sums.
struct Group {
  Floats scale;
  Ints zero;  // of stored zeros
};

[[gnu::always_inline]] static inline Group group_at(const Strip& strip, int64_t column) noexcept {
  const int64_t g = (column >> strip.group_shift) * kStripRows;
  const auto* scales = reinterpret_cast<const __m256i*>(strip.scales + g);
  Group group = {{_mm512_cvtph_ps(_mm256_loadu_si256(scales)),
                  _mm512_cvtph_ps(_mm256_loadu_si256(scales + 1))},
                 zero()};
  if (strip.zeros != nullptr) {
    const auto* zeros = reinterpret_cast<const __m128i*>(strip.zeros + g);
    group.zero = {_mm512_cvtepu8_epi32(_mm_loadu_si128(zeros)),
                  _mm512_cvtepu8_epi32(_mm_loadu_si128(zeros + 1))};
  }
  return group;
}

// f = fma(float(twice - zero2 * sum), (scale / 2) * activation scale, f), with the half taken from
// the activation scale: exact as well (QuantizedRows), and the products round alike.
[[gnu::always_inline]] static inline void add_group(Floats& f, Ints twice, const Strip& strip,
                                                    const Group& group, int32_t sum,
                                                    float half) noexcept {
  if (strip.zeros != nullptr) {
    const __m512i twice_sum = _mm512_set1_epi32(2 * sum);
    twice.low = _mm512_sub_epi32(twice.low, _mm512_mullo_epi32(group.zero.low, twice_sum));
    twice.high = _mm512_sub_epi32(twice.high, _mm512_mullo_epi32(group.zero.high, twice_sum));
  } else {
    const __m512i zero = _mm512_set1_epi32(strip.zero2 * sum);
    twice.low = _mm512_sub_epi32(twice.low, zero);
    twice.high = _mm512_sub_epi32(twice.high, zero);
  }
  const __m512 x_scale = _mm512_set1_ps(half);
  f.low = _mm512_fmadd_ps(_mm512_cvtepi32_ps(twice.low), _mm512_mul_ps(group.scale.low, x_scale),
                          f.low);
  f.high = _mm512_fmadd_ps(_mm512_cvtepi32_ps(twice.high), _mm512_mul_ps(group.scale.high, x_scale),
                           f.high);
}

[[gnu::always_inline]] static inline void store(float* y, Floats f, const Strip& strip) noexcept {
  _mm512_mask_storeu_ps(y, strip.low_rows, f.low);
  _mm512_mask_storeu_ps(y + kZmmLanes, strip.high_rows, f.high);
}

// The runs of columns that one unpacking step covers, four columns a field.
template <int kBits>
inline constexpr int kFields = kBits == 3 ? 8 : 8 / kBits;

// Field kField of the step at `codes`: four codes a lane, a byte each.
template <int kBits, int kField>
[[gnu::always_inline]] static inline Ints unpack(const uint8_t* codes) noexcept {
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

// Strips past the last row are none.
[[gnu::always_inline]] static inline int64_t end_of(const PackedMatrix& w, Range strips) noexcept {
  const int64_t count = (w.rows + kStripRows - 1) / kStripRows;
  return strips.end < count ? strips.end : count;
}

// The strips of `w` one by one: strip s, of which the kernels read and prefetch nothing past `end`.
[[gnu::always_inline]] static inline Strip strip_of(const PackedMatrix& w, int64_t s,
                                                    int64_t end) noexcept {
  const int64_t groups = (w.cols + w.group - 1) / w.group;
  const int64_t columns = (w.cols + kColumnAlign - 1) / kColumnAlign * kColumnAlign;
  const int64_t rows = w.rows - s * kStripRows;
  const int64_t first_group = s * groups * kStripRows;
  const int64_t bytes = columns * 4 * w.bits, left = (end - 1 - s) * bytes;
  // A group of all columns is the only one whose length may be no power of two: k >> 62 is 0.
  const int shift = w.group == w.cols ? 62 : __builtin_ctzll(static_cast<uint64_t>(w.group));
  const int32_t levels = 1 << w.bits;
  return {w.codes + s * bytes,
          w.scales + first_group,
          w.grid == Grid::kAsym ? w.zeros + first_group : nullptr,
          columns,
          shift,
          w.grid == Grid::kSeq ? levels - 1 : levels,
          first_lanes(rows),
          first_lanes(rows - kZmmLanes),
          left < kPrefetchBytes ? left : kPrefetchBytes};
}

}  // namespace crumb::kernels

// Prefill: a strip is unpacked into a panel of bytes, 512 columns at a time, and each panel serves
// up to 64 tokens from the L1 cache. The integer sums of those tokens stay in memory between panels
// and groups; how they are added is the caller's (vpdpbusd, or tiles).
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni_strip.h"
#include "kernels/backend.h"
#include "kernels/layout.h"

namespace crumb::kernels {

inline constexpr int64_t kPanelColumns = 512;
inline constexpr int64_t kPanelTokens = 64;

// 32 rows x `columns` codes as bytes, in the order of INT8's steps: 128 bytes are 4 columns.
struct Panel {
  const uint8_t* bytes;
  int64_t columns;
};

struct PanelBuffers {
  alignas(64) uint8_t bytes[kStripRows * kPanelColumns];
  alignas(64) int32_t sums[kPanelTokens * kStripRows];
  alignas(64) float f[kPanelTokens * kStripRows];
};

template <int kBits, int kField = 0>
[[gnu::always_inline]] static inline void unpack_fields(const uint8_t* codes,
                                                        uint8_t* bytes) noexcept {
  const Ints v = unpack<kBits, kField>(codes);
  _mm512_store_si512(bytes + kField * kStepBytes, v.low);
  _mm512_store_si512(bytes + kField * kStepBytes + kRegisterBytes, v.high);
  if constexpr (kField + 1 < kFields<kBits>) unpack_fields<kBits, kField + 1>(codes, bytes);
}

template <int kBits>
[[gnu::always_inline]] static inline void unpack_panel(const uint8_t* codes, int64_t columns,
                                                       uint8_t* bytes) noexcept {
  constexpr int64_t kColumns = 4 * kFields<kBits>;
  for (int64_t k = 0; k < columns; k += kColumns) {
    unpack_fields<kBits>(codes + k * 4 * kBits, bytes + k * kStripRows);
  }
}

// Columns [first, first + columns) of one strip.
[[gnu::always_inline]] static inline Panel panel_of(const Strip& strip, int bits, int64_t first,
                                                    int64_t columns, uint8_t* bytes) noexcept {
  const uint8_t* codes = strip.codes + first * 4 * bits;
  if (bits == 8) return {codes, columns};
  if (bits == 2) unpack_panel<2>(codes, columns, bytes);
  if (bits == 3) unpack_panel<3>(codes, columns, bytes);
  if (bits == 4) unpack_panel<4>(codes, columns, bytes);
  return {bytes, columns};
}

// sums [tokens, 32] += or, if `start`, = the panel times q [tokens, stride]; by vpdpbusd.
void avx512vnni_add_panel(Panel panel, const int8_t* q, int64_t stride, int64_t tokens, bool start,
                          int32_t* sums) noexcept;

// f += the finished sums of activation group `a` for tokens [t0, t0 + tokens).
[[gnu::always_inline]] static inline void finish_group(const Strip& strip, const QuantizedRows& x,
                                                       int64_t a, int64_t t0, int64_t tokens,
                                                       PanelBuffers& buffers) noexcept {
  const Group group = group_at(strip, a * x.group);
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t at = (t0 + t) * x.groups + a;
    const int32_t* sums = buffers.sums + t * kStripRows;
    const Ints once = {_mm512_load_si512(sums), _mm512_load_si512(sums + kZmmLanes)};
    float* out = buffers.f + t * kStripRows;
    Floats f = {_mm512_load_ps(out), _mm512_load_ps(out + kZmmLanes)};
    add_group(f, plus(once, once), strip, group, x.sums[at], 0.5f * x.scales[at]);
    _mm512_store_ps(out, f.low);
    _mm512_store_ps(out + kZmmLanes, f.high);
  }
}

// Tokens [t0, t0 + tokens) of one strip. add(panel, q, tokens, start, sums) adds the panel's
// products of q [tokens, x.stride] to sums [tokens, 32], or sets them if `start`.
template <class Add>
[[gnu::always_inline]] static inline void strip_gemm(const Strip& strip, int bits,
                                                     const QuantizedRows& x, int64_t t0,
                                                     int64_t tokens, PanelBuffers& buffers,
                                                     float* y, int64_t ldy,
                                                     const Add& add) noexcept {
  for (int64_t i = 0; i < tokens * kStripRows; i += kZmmLanes) {
    _mm512_store_ps(buffers.f + i, _mm512_setzero_ps());
  }
  for (int64_t first = 0; first < strip.columns; first += kPanelColumns) {
    const int64_t left = strip.columns - first;
    const Panel panel =
        panel_of(strip, bits, first, left < kPanelColumns ? left : kPanelColumns, buffers.bytes);
    // The panel's part of each activation group: groups of 32 and 64 lie inside one panel.
    for (int64_t k = 0; k < panel.columns;) {
      const int64_t a = (first + k) / x.group;
      const int64_t group_end =
          (a + 1) * x.group < strip.columns ? (a + 1) * x.group : strip.columns;
      const int64_t end = group_end - first < panel.columns ? group_end - first : panel.columns;
      add(Panel{panel.bytes + k * kStripRows, end - k}, x.q + t0 * x.stride + first + k, tokens,
          first + k == a * x.group, buffers.sums);
      if (first + end == group_end) finish_group(strip, x, a, t0, tokens, buffers);
      k = end;
    }
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const float* f = buffers.f + t * kStripRows;
    store(y + (t0 + t) * ldy, {_mm512_load_ps(f), _mm512_load_ps(f + kZmmLanes)}, strip);
  }
}

template <class Add>
[[gnu::always_inline]] static inline void gemm(const PackedMatrix& w, const QuantizedRows& x,
                                               Range strips, float* y, int64_t ldy,
                                               const Add& add) noexcept {
  PanelBuffers buffers;
  const int64_t end = end_of(w, strips);
  for (int64_t s = strips.begin; s < end; ++s) {
    const Strip strip = strip_of(w, s, end);
    for (int64_t t = 0; t < x.tokens; t += kPanelTokens) {
      const int64_t left = x.tokens - t;
      strip_gemm(strip, w.bits, x, t, left < kPanelTokens ? left : kPanelTokens, buffers,
                 y + s * kStripRows, ldy, add);
    }
  }
}

}  // namespace crumb::kernels

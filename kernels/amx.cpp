// The table for CPUs with AMX-INT8 (Sapphire Rapids on): avx512vnni, with prompts multiplied in
// tiles. TDPBSUD adds, for 16 tokens x 16 rows, 64 products each: s8 activations as they lie in
// memory times u8 codes in steps of 4 columns x 16 rows, which is half of a panel's step.
// C[t][r] += sum over k / 4 = 0..15, i = 0..3 of A[t][4 k + i] * B[k][4 r + i]   (Intel SDM, TDPB*)
#include <immintrin.h>

#include <cstdint>

#include "kernels/avx512vnni.h"
#include "kernels/avx512vnni_panel.h"
#include "kernels/backend.h"

namespace crumb::kernels {

extern const Backend kAmx;

namespace {

constexpr int64_t kTileRows = 16;     // tokens of A and C, steps of B
constexpr int64_t kTileColumns = 64;  // of A: bytes of activations
constexpr int64_t kSumBytes = kStripRows * 4;

// All eight tiles are 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Sums in tiles 0-3 (tokens 0-15 x rows 0-15, x rows 16-31, tokens 16-31 likewise), activations in
// 4 and 5, codes in 6 and 7.
void add_32_tokens(Panel panel, const int8_t* q, int64_t stride, bool start,
                   int32_t* sums) noexcept {
  int32_t* lower = sums + kTileRows * kStripRows;
  if (start) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, kSumBytes);
    _tile_loadd(1, sums + kZmmLanes, kSumBytes);
    _tile_loadd(2, lower, kSumBytes);
    _tile_loadd(3, lower + kZmmLanes, kSumBytes);
  }
  for (int64_t k = 0; k < panel.columns; k += kTileColumns) {
    const uint8_t* codes = panel.bytes + k * kStripRows;
    _tile_loadd(6, codes, kStepBytes);
    _tile_loadd(4, q + k, stride);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(7, codes + kRegisterBytes, kStepBytes);
    _tile_dpbsud(1, 4, 7);
    _tile_loadd(5, q + kTileRows * stride + k, stride);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + kZmmLanes, kSumBytes);
  _tile_stored(2, lower, kSumBytes);
  _tile_stored(3, lower + kZmmLanes, kSumBytes);
}

void add_16_tokens(Panel panel, const int8_t* q, int64_t stride, bool start,
                   int32_t* sums) noexcept {
  if (start) {
    _tile_zero(0);
    _tile_zero(1);
  } else {
    _tile_loadd(0, sums, kSumBytes);
    _tile_loadd(1, sums + kZmmLanes, kSumBytes);
  }
  for (int64_t k = 0; k < panel.columns; k += kTileColumns) {
    const uint8_t* codes = panel.bytes + k * kStripRows;
    _tile_loadd(4, q + k, stride);
    _tile_loadd(6, codes, kStepBytes);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(7, codes + kRegisterBytes, kStepBytes);
    _tile_dpbsud(1, 4, 7);
  }
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + kZmmLanes, kSumBytes);
}

// A part of 32 columns (groups of 32, or the end of a padded K) and the last tokens go to vpdpbusd.
void add_panel(Panel panel, const int8_t* q, int64_t stride, int64_t tokens, bool start,
               int32_t* sums) noexcept {
  const Panel whole = {panel.bytes, panel.columns / kTileColumns * kTileColumns};
  int64_t t = 0;
  if (whole.columns > 0) {
    for (; t + 2 * kTileRows <= tokens; t += 2 * kTileRows) {
      add_32_tokens(whole, q + t * stride, stride, start, sums + t * kStripRows);
    }
    for (; t + kTileRows <= tokens; t += kTileRows) {
      add_16_tokens(whole, q + t * stride, stride, start, sums + t * kStripRows);
    }
    if (t > 0 && whole.columns < panel.columns) {
      avx512vnni_add_panel(
          {panel.bytes + whole.columns * kStripRows, panel.columns - whole.columns},
          q + whole.columns, stride, t, false, sums);
    }
  }
  if (t == tokens) return;
  avx512vnni_add_panel(panel, q + t * stride, stride, tokens - t, start, sums + t * kStripRows);
}

void matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
            int64_t ldy) noexcept {
  if (x.tokens < kTileRows) return avx512vnni_matmul(w, x, strips, y, ldy);
  const TileConfig config;
  _tile_loadconfig(&config);
  gemm(w, x, strips, y, ldy,
       [&x](Panel panel, const int8_t* q, int64_t tokens, bool start, int32_t* sums) {
         add_panel(panel, q, x.stride, tokens, start, sums);
       });
  _tile_release();
}

}  // namespace

constinit const Backend kAmx = {"amx",
                                matmul,
                                avx512vnni_matmul_f32,
                                avx512vnni_quantize_row,
                                avx512vnni_rmsnorm,
                                avx512vnni_rope,
                                avx512vnni_silu_mul,
                                avx512vnni_gelu_mul,
                                avx512vnni_hadamard,
                                avx512vnni_attend,
                                avx512vnni_to_f16,
                                avx512vnni_to_i8,
                                avx512vnni_argmax};

}  // namespace crumb::kernels

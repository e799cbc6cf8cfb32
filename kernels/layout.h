// The packed weight layout: the contract between quant (writes), models (stores) and kernels
// (read).
//
// A matrix [N, K] is cut into strips of 32 output rows. Stored columns are padded to Kp, the next
// multiple of 32, with code 0; padded rows have scale 0. A strip's codes are one run of
// 32 * Kp * bits / 8 bytes, k ascending, in steps of 4 columns in which every 32-bit lane is one
// row:
//   INT8  one step = 128 bytes =  4 k: byte 4*r + i           holds k0 + i
//   INT4  one step = 128 bytes =  8 k: bits [4*f, 4*f+4)      hold  k0 + 4*f + i    (f = 0..1)
//   INT2  one step = 128 bytes = 16 k: bits [2*f, 2*f+2)      hold  k0 + 4*f + i    (f = 0..3)
//   INT3  one step = 384 bytes = 32 k: two INT2 steps with the low two bits (k0.., k0+16..), then
//         128 bytes with the high bit: bit f of byte 4*r + i  holds k0 + 4*f + i    (f = 0..7)
// where r is the row in the strip (0..31) and i = 0..3. The order is the same for every instruction
// set and on disk; nothing is repacked at load.
//
// Scales are binary16 [strips, groups, 32]; zeros, if the grid has them, are u8 [strips, groups,
// 32]. groups = ceil(K / group), the last one may be shorter; one group over all of K is a row
// scale.
//
// Value of a code:  w = scale * (code - zero2 / 2)
//   seq   zero2 = 2^bits - 1   (mid-rise, INT2 = scale * {-1.5, -0.5, 0.5, 1.5})
//   lsq   zero2 = 2^bits       (mid-tread)
//   asym  zero2 = 2 * zeros[]  (integer zero point per group)
#pragma once
#include <cstdint>

namespace crumb::kernels {

inline constexpr int64_t kStripRows = 32;
inline constexpr int64_t kColumnAlign = 32;
// Integer sums 2 * sum(code * x) - zero2 * sum(x) must fit int32: 2 * 255 * 127 * K < 2^31.
inline constexpr int64_t kMaxColumns = 32768;

enum class Grid : uint8_t { kSeq, kLsq, kAsym };

constexpr int64_t padded_columns(int64_t K) {
  return (K + kColumnAlign - 1) / kColumnAlign * kColumnAlign;
}
constexpr int64_t strip_count(int64_t N) { return (N + kStripRows - 1) / kStripRows; }
constexpr int64_t group_count(int64_t K, int64_t group) { return (K + group - 1) / group; }
constexpr int64_t strip_code_bytes(int64_t K, int bits) { return 4 * padded_columns(K) * bits; }
constexpr bool valid_bits(int bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }
// A group is 32, 64, 128 or all of K.
constexpr bool valid_group(int64_t group, int64_t K) {
  return group == K || ((group == 32 || group == 64 || group == 128) && group < K);
}
// Twice the zero point of a grid without stored zeros.
constexpr int32_t grid_zero2(Grid grid, int bits) {
  return grid == Grid::kSeq ? (1 << bits) - 1 : (1 << bits);
}

// A read-only view of one packed matrix. codes and scales are 64-byte aligned.
struct PackedMatrix {
  const uint8_t* codes = nullptr;    // [strips, strip_code_bytes(K, bits)]
  const uint16_t* scales = nullptr;  // binary16 [strips, groups, 32]
  const uint8_t* zeros = nullptr;    // [strips, groups, 32], null unless grid is kAsym
  int64_t rows = 0;                  // N
  int64_t cols = 0;                  // K
  int64_t group = 0;                 // 32, 64, 128, or K
  int bits = 0;                      // 2, 3, 4, 8
  Grid grid = Grid::kSeq;
};

// Where one code lives in its strip: the byte's index and the bit fields in it.
// INT3 has a second place for its high bit (high_byte >= 0).
struct CodePlace {
  int64_t byte = 0;
  int shift = 0;
  int64_t high_byte = -1;
  int high_shift = 0;
};

constexpr CodePlace code_place(int bits, int64_t row_in_strip, int64_t k) {
  const int64_t lane = 4 * row_in_strip + k % 4;
  if (bits == 3) {
    const int64_t block = k / 32 * 384;
    const int64_t in_block = k % 32;
    return {block + in_block / 16 * 128 + lane, static_cast<int>(in_block / 4 % 4) * 2,
            block + 256 + lane, static_cast<int>(in_block / 4)};
  }
  const int64_t fields = 8 / bits;
  return {k / (4 * fields) * 128 + lane, static_cast<int>(k / 4 % fields) * bits, -1, 0};
}

}  // namespace crumb::kernels

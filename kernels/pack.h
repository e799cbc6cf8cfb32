// Codes <-> packed words. The only code that writes the layout of kernels/layout.h.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/layout.h"

namespace crumb::kernels {

// codes [N, K] row-major, one code a byte, each < 2^bits -> packed [strips * strip_code_bytes(K,
// bits)]. Padding rows and columns get code 0. Sizes are checked by assert.
void pack_codes(std::span<const uint8_t> codes, int64_t N, int64_t K, int bits,
                std::span<uint8_t> packed);
// The inverse, row by row: the code of row n, column k.
int unpack_code(const PackedMatrix& w, int64_t n, int64_t k);

// Per-row, per-group values [N, groups] -> strip order [strips, groups, 32]; padding rows get
// `pad`.
void pack_groups(std::span<const uint16_t> values, int64_t N, int64_t groups, uint16_t pad,
                 std::span<uint16_t> packed);
void pack_groups(std::span<const uint8_t> values, int64_t N, int64_t groups, uint8_t pad,
                 std::span<uint8_t> packed);

// out[k] = value of w[n, k], k in [0, K), as unpack_code and the header of layout.h say it.
void dequantize_row(const PackedMatrix& w, int64_t n, std::span<float> out);

}  // namespace crumb::kernels

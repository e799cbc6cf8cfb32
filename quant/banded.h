// Rounding of a matrix whose bands of rows have different widths. All methods round rows
// independently, so the result is, row by row, that of the whole matrix at the row's width.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/bands.h"
#include "quant/rounded.h"

namespace crumb::quant {

// rows [n, K] at one width.
using RoundRows = std::function<Rounded(std::span<const float> rows, int64_t n, int bits)>;

// w [N, K]; `bands` cover its strips. One Rounded a band, top to bottom, for pack_bands().
std::vector<Rounded> round_bands(std::span<const float> w, int64_t N, int64_t K,
                                 std::span<const models::Band> bands, const RoundRows& round);

// [N, K]: the values of all bands.
std::vector<float> dequantize(std::span<const Rounded> bands);

}  // namespace crumb::quant

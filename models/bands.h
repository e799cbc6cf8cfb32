// Matrices of several widths: runs of whole strips of 32 rows, one below the other. A matrix of one
// width is one band.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/layout.h"

namespace crumb::models {

struct Band {
  int64_t strips = 0;
  int bits = 0;
  bool operator==(const Band&) const = default;
};

// Bytes of the codes of all bands.
int64_t code_bytes(std::span<const Band> bands, int64_t K);
// Stored bits of codes a weight.
double mean_bits(std::span<const Band> bands);
// "INT3", "INT2-4": the widths from the lowest to the highest.
std::string widths_text(std::span<const Band> bands);

// The bands of a matrix whose codes, scales and zeros lie one strip after the other from the
// pointers of `whole` on. `bands` covers its rows; whole.bits is not read.
std::vector<kernels::PackedMatrix> cut_bands(const kernels::PackedMatrix& whole,
                                             std::span<const Band> bands);
// The table that these bands were cut by.
std::vector<Band> bands_of(std::span<const kernels::PackedMatrix> matrices);

// out[k] = value of row n of the matrix that the bands make up.
void dequantize_row(std::span<const kernels::PackedMatrix> bands, int64_t n, std::span<float> out);

}  // namespace crumb::models

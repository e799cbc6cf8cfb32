// A matrix on a grid, in row order: what every rounding method returns, and its packing.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/checkpoint.h"
#include "quant/grid.h"

namespace crumb::quant {

struct Rounded {
  int64_t N = 0, K = 0;
  int64_t group = 0;  // 32, 64, 128, or K: kernels::valid_group
  int bits = 0;
  kernels::Grid grid = kernels::Grid::kSeq;
  std::vector<uint8_t> codes;    // [N, K]
  std::vector<uint16_t> scales;  // binary16 [N, groups]
  std::vector<uint8_t> zeros;    // [N, groups], kAsym only
};

// All codes and scales 0. group 0 is one scale a row.
Rounded make_rounded(int64_t N, int64_t K, int bits, int64_t group, kernels::Grid grid);

inline int64_t groups_of(const Rounded& rounded) {
  return kernels::group_count(rounded.K, rounded.group);
}
// Scale and zero of one group.
void set_fit(Rounded* rounded, int64_t n, int64_t g, const GroupFit& fit);
GroupFit fit_of(const Rounded& rounded, int64_t n, int64_t g);

// [N, K]: the values of the codes, as kernels::dequantize_row reads them after packing.
std::vector<float> dequantize(const Rounded& rounded);

// In the strip order of kernels/layout.h.
models::PackedData pack(const Rounded& rounded, const models::Rotation& rotation);
// Bands of a matrix, top to bottom, each of whole strips but the last; they differ in bits only.
models::PackedData pack_bands(std::span<const Rounded> bands, const models::Rotation& rotation);
// The inverse of pack_bands(), but for the rotation: one a band, top to bottom; a matrix of one
// width is one band.
std::vector<Rounded> unpack_bands(const models::PackedData& packed);
// The inverse of pack(), of data in memory or of a view of one band.
Rounded unpack(const models::PackedData& packed);
Rounded unpack(const kernels::PackedMatrix& matrix, int threads = 0);

}  // namespace crumb::quant

// Round to nearest: the control of every other method.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "models/checkpoint.h"
#include "quant/grid.h"

namespace crumb::quant {

struct RtnOptions {
  int bits = 4;        // 2, 3, 4, 8; 32 keeps the matrix in float (plan only)
  int64_t group = 64;  // 32, 64, 128, or 0 for one scale a row
  kernels::Grid grid = kernels::Grid::kSeq;
  ScaleSearch search = ScaleSearch::kMse;
  models::Rotation rotation;  // applied to the rows of w before rounding
};

// Throws Error(kUsage) naming the matrix and the value if a matrix [N, K] cannot be stored like
// this: bits, group (a last group may be shorter, a group longer than K may not), K over
// kernels::kMaxColumns, a Hadamard block that is no power of two in 32..512 or does not divide K.
void validate(const RtnOptions& options, int64_t N, int64_t K, const std::string& name);

// Throws Error(kNumeric) naming the tensor, row and value if w [N, K] holds a NaN or an infinity.
void require_finite(std::span<const float> w, int64_t K, const std::string& name);

// row [K] = H S row: signs, then normalised Hadamard blocks, the rotation the runtime applies to
// the matrix's input. Since (H S)^-1 = S H, the rotated row times the rotated input is the old
// product.
void rotate_row(std::span<float> row, const models::Rotation& rotation,
                std::span<const float> signs);

// w [N, K] row-major -> packed. Deterministic; independent of the number of threads (0: all
// hardware threads). name is for messages. Throws Error: validate(), require_finite().
models::PackedData rtn(std::span<const float> w, int64_t N, int64_t K, const RtnOptions& options,
                       const std::string& name, int threads = 0);

// Read-only views of data, which must outlive them: of a matrix of one width, and of any matrix.
kernels::PackedMatrix view(const models::PackedData& data);
std::vector<kernels::PackedMatrix> band_views(const models::PackedData& data);

}  // namespace crumb::quant

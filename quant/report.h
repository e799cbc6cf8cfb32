// Distortion of a packed matrix, measured on the packed bytes themselves.
#pragma once
#include <cstdint>
#include <span>

#include "models/checkpoint.h"

namespace crumb::quant {

struct Distortion {
  double mse = 0;             // ||w - w'||^2 / n
  double relative_error = 0;  // ||w - w'|| / ||w||, 0 if w is 0
};

// w [N, K] before rotation against the dequantized matrix; a rotated one is compared in its own
// space, which is the same since rotations keep norms. Sums in double, rows in order, whatever the
// threads.
Distortion measure(std::span<const float> w, const models::PackedData& packed, int threads = 0);

}  // namespace crumb::quant

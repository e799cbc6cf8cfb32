// Round to nearest: the control of every other method.
#pragma once
#include <cstdint>
#include <span>

#include "models/checkpoint.h"
#include "quant/grid.h"

namespace crumb::quant {

struct RtnOptions {
  int bits = 4;
  int64_t group = 64;  // 32, 64, 128, or 0 for one scale a row
  kernels::Grid grid = kernels::Grid::kSeq;
  ScaleSearch search = ScaleSearch::kMse;
  models::Rotation rotation;  // applied to the rows of w before rounding
};

// w [N, K] row-major -> packed. Deterministic; independent of the number of threads. name is for messages.
models::PackedData rtn(std::span<const float> w, int64_t N, int64_t K, const RtnOptions& options,
                       const std::string& name);

}  // namespace crumb::quant

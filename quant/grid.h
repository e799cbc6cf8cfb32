// Uniform grids. One group of weights -> scale, zero point and codes.
//   w = scale * (code - zero2 / 2), see kernels/layout.h
#pragma once
#include <cstdint>
#include <span>

#include "kernels/layout.h"

namespace crumb::quant {

struct GroupFit {
  float scale = 0;   // representable in binary16, > 0 unless all weights are 0
  int32_t zero2 = 0; // twice the zero point
};

enum class ScaleSearch : uint8_t { kAbsMax, kMse };  // from the largest weight, or least squared error

// The scale (and zero) for one group of weights. kMse tries 64 ratios of the absmax (or min-max) scale
// and keeps the smallest squared error after rounding to binary16. Weights must be finite.
GroupFit fit_group(std::span<const float> w, int bits, kernels::Grid grid, ScaleSearch search);

// Nearest code of each weight; ties away from the grid's lower end.
void round_group(std::span<const float> w, const GroupFit& fit, int bits, std::span<uint8_t> codes);

}  // namespace crumb::quant

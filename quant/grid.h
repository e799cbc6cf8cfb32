// Uniform grids. One group of weights -> scale, zero point and codes.
//   w = scale * (code - zero2 / 2), see kernels/layout.h
#pragma once
#include <cstdint>
#include <span>

#include "kernels/layout.h"

namespace crumb::quant {

struct GroupFit {
  float scale = 0;    // representable in binary16, > 0 unless all weights are 0
  int32_t zero2 = 0;  // twice the zero point
};

enum class ScaleSearch : uint8_t {
  kAbsMax,
  kMse
};  // from the largest weight, or least squared error

// The scale (and zero) for one group of weights. Weights must be finite.
//   kAbsMax  the smallest binary16 scale whose levels span every weight (rounded up), so that no
//   weight
//            is further than half a step from its level:
//            seq   scale = 2 max|w| / (2^bits - 1)
//            lsq   scale = max(max(w) / (2^(bits-1) - 1), max(-w) / 2^(bits-1)), always positive
//            asym  scale = (max(w, 0) - min(w, 0)) / (2^bits - 1), zero = round(-min(w, 0) / scale)
//   kMse     tries 64 ratios of that scale (0.15 to 1.15, then finely around the best) and keeps
//   the
//            smallest sum of (w - w')^2 with the scale rounded to binary16, never worse than
//            kAbsMax.
// Scales are clamped to binary16's [2^-24, 65504]: groups below that range come out as the smallest
// step, weights above it saturate (the distortion report shows both).
GroupFit fit_group(std::span<const float> w, int bits, kernels::Grid grid, ScaleSearch search);

// The binary16 value nearest to a scale, clamped to the range above.
float nearest_scale(double scale);

// Nearest code of each weight, exactly; ties away from the grid's lower end. A scale of 0 (all
// weights are 0) gives the zero point's code.
void round_group(std::span<const float> w, const GroupFit& fit, int bits, std::span<uint8_t> codes);

}  // namespace crumb::quant

// Scales that minimise the error that reaches the output: each column's error counts as much as
// its input's second moment h_k = H_kk (diagonal of E[x x^T], rotated if the weights are).
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "quant/grid.h"
#include "quant/rounded.h"

namespace crumb::quant {

// kAbsMax and kMse are ScaleSearch's; kWeighted minimises sum_k h_k (w_k - w'_k)^2.
enum class ScaleRule : uint8_t { kAbsMax, kMse, kWeighted };

// The scale (and zero) of one group [n] with column weights h [n] >= 0. Tries 30 ratios of
// kAbsMax's scale, 1.05 down to 0.15 in equal factors (so that INT2 of rows with outliers finds its
// small step), then finely between the neighbours of the best one; for asym each with five zero
// points. Never worse than kAbsMax in the weighted error. If all h are 0 (a dead group) every
// weight counts alike.
GroupFit fit_group_weighted(std::span<const float> w, std::span<const float> h, int bits,
                            kernels::Grid grid);

// One of the three; h is read by kWeighted only.
GroupFit fit_group(std::span<const float> w, std::span<const float> h, int bits, kernels::Grid grid,
                   ScaleRule rule);

// Row n of `out`: scales and zeros by the rule (h [K] read by kWeighted only), and the nearest
// codes on the scales it has.
void fit_row(std::span<const float> row, std::span<const float> h, ScaleRule rule, int64_t n,
             Rounded* out);
void round_row(std::span<const float> row, int64_t n, Rounded* out);

struct NearestOptions {
  int bits = 4;
  int64_t group = 0;  // 32, 64, 128, or 0 for one scale a row
  kernels::Grid grid = kernels::Grid::kSeq;
  ScaleRule rule = ScaleRule::kWeighted;
};

// w [N, K] row-major -> scales and zeros, codes left 0.
Rounded fit_scales(std::span<const float> w, int64_t N, int64_t K, std::span<const float> h,
                   const NearestOptions& options, int threads = 0);
// The same and the nearest code of every weight: the control of LDLQ.
Rounded round_nearest(std::span<const float> w, int64_t N, int64_t K, std::span<const float> h,
                      const NearestOptions& options, int threads = 0);

}  // namespace crumb::quant

// The matrix that makes up for what its inputs have lost.
//
// With x the input of a linear in the full-precision model, x^ its input behind what is stored, and
// r, r^ the residual stream that it adds to,
//   W* = W + (a W E[(x - x^) x^^T] + b E[(r - r^) x^^T]) (H + damping I)^-1,   H = E[x^ x^^T],
// gives on x^, for a = b = 1, what is nearest to r + W x (GPTAQ, arXiv:2504.02692, for a).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/plan.h"

namespace crumb::quant {

inline constexpr double kShiftDamping = 0.01;  // of the mean diagonal of H

// H + damping mean(diag H) I = R R^T, one for all matrices of an input.
struct ShiftFactor {
  int64_t K = 0;
  std::vector<double> R;  // [K, K] upper; empty if H is 0: there is nothing to make up for
  double damping = 0;     // the rung of kDampingLadder, kShiftDamping or more
  bool raised() const { return damping > kShiftDamping; }
};
// With the first rung, from kShiftDamping on, at which every pivot is at least half of what is
// added. Throws Error(kNumeric) naming `name` if H is not finite or no rung is enough.
ShiftFactor shift_factor(std::span<const double> H, int64_t K, const std::string& name,
                         int threads);

// Means over tokens: inputs = E[(x - x^) x^^T] [K, K], empty for a = 0; residual =
// E[(r - r^) x^^T] [N, K], empty for b = 0.
struct ShiftMoments {
  std::span<const double> inputs, residual;
};
// W* [N, K] of W, with a = fit.shift and b = fit.residual. Independent of the number of threads.
std::vector<float> shifted_target(std::span<const float> w, const ShiftFactor& factor,
                                  const ShiftMoments& moments, const BlockFit& fit, int threads);

}  // namespace crumb::quant

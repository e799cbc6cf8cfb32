// Rounding a block matrix after matrix, each calibrated behind all that is stored already, in the
// earlier blocks and in its own.
//
// With x the input of a linear in the full-precision model and x^ its input behind what is stored,
// the matrix W is rounded not to itself but to
//   W* = W + (a W E[(x - x^) x^^T] + b E[(r - r^) x^^T]) (H + damping I)^-1,   H = E[x^ x^^T],
// whose output on x^ is, for a = b = 1, nearest to what the full-precision model has there: W x for
// a (GPTAQ, arXiv:2504.02692), and for b, in o and down, r + W x of the residual stream r that they
// add to. E weighs tokens (quant/token_weights.h).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/source.h"
#include "quant/block_job.h"
#include "quant/calibration.h"
#include "quant/plan.h"
#include "quant/token_weights.h"

namespace crumb::quant {

inline constexpr double kShiftDamping = 0.01;  // of the mean diagonal of H

// W* [N, K] of W. Moments are means: H [K, K]; inputs = E[(x - x^) x^^T] [K, K], empty for a = 0;
// residual = E[(r - r^) x^^T] [N, K], empty for b = 0. W itself if H is 0 or not positive.
struct ShiftMoments {
  std::span<const double> H, inputs, residual;
  int64_t K = 0;
};
std::vector<float> shifted_target(std::span<const float> w, const ShiftMoments& moments,
                                  const BlockFit& fit, int threads);

// Rounds block.weights into block.stored like round_block, but by options.fit; `gradients` may be
// empty unless its weights are kGradient. The streams are those entering the block. Equalised
// weights are taken as they are, block.statistics are not read.
struct SequentialStreams {
  std::span<const float> full, prefix;
};
struct StreamsAfter {
  std::vector<float> full, prefix;  // leaving the block; full empty without shifts
};
StreamsAfter round_in_sequence(const QuantizeOptions& options, const TokenGradients& gradients,
                               const SequentialStreams& streams, BlockAtWork& block);

}  // namespace crumb::quant

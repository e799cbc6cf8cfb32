// Rounding a block matrix after matrix, each calibrated behind all that is stored already, in the
// earlier blocks and in its own.
//
// Every matrix is rounded to the target W* of quant/shift.h instead of to itself, with H, inputs
// and residual stream behind what is stored; tokens count by quant/token_weights.h.
#pragma once
#include <span>
#include <vector>

#include "models/source.h"
#include "quant/block_job.h"
#include "quant/calibration.h"
#include "quant/plan.h"
#include "quant/token_weights.h"

namespace crumb::quant {

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

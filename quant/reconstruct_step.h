// Reconstruction (quant/reconstruct.h) as the step of the calibrated job after rounding.
#pragma once
#include <functional>
#include <vector>

#include "engine/progress.h"
#include "quant/block_job.h"
#include "quant/journal.h"
#include "quant/plan.h"
#include "quant/reconstruct.h"

namespace crumb::quant {

// Learns the packed matrices of a block from where rounding left them, and puts one report a block
// into `reports`, which must outlive the function, and a line to `notice`. Windows are those of
// options.calibration. A matrix's output_error is taken out of its report: it was that of the
// start, and is not what is learned. Throws what reconstruct() throws.
std::function<void(BlockAtWork&, Calibrator&)> reconstruction_step(
    const QuantizeOptions& options, const NoticeFn& notice, const ProgressFn& progress,
    std::vector<ReconstructReport>* reports);

}  // namespace crumb::quant

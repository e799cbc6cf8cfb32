// The calibrated job: block by block through the model, then the head.
#pragma once
#include <map>
#include <string>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/block_job.h"
#include "quant/plan.h"

namespace crumb::quant {

// Whether the job needs the activations of a calibration text.
bool needs_calibration(const models::ModelConfig& config, const QuantizeOptions& options,
                       const BlockSteps& steps);

// All tensors of the blocks, and the head (or the embedding it is tied to) if its method reads
// statistics, by name. Every block: statistics of its inputs, equalise, round, reconstruct, then
// the calibration stream goes on through the weights that were stored. The head's input is the
// normed stream after the last block. Throws what quantize() throws; options.calibration is set.
std::map<std::string, StoredTensor> run_calibrated(const models::SourceModel& source,
                                                   const QuantizeOptions& options,
                                                   const BlockSteps& steps,
                                                   const ProgressFn& progress);

}  // namespace crumb::quant

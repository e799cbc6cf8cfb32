// The calibrated job: block by block through the model, then the head, into a journal.
#pragma once
#include "engine/progress.h"
#include "models/source.h"
#include "quant/block_job.h"
#include "quant/journal.h"
#include "quant/plan.h"

namespace crumb::quant {

// Whether the job needs the activations of a calibration text.
bool needs_calibration(const models::ModelConfig& config, const QuantizeOptions& options,
                       const BlockSteps& steps);

// The head, or the embedding that is tied to it; and its part of the journal.
models::TensorInfo head_tensor(const models::ModelConfig& config);
inline int64_t head_part(const models::ModelConfig& config) { return config.layers; }

// Puts all tensors of every block into `journal`, and the head if its method reads statistics;
// parts that are there are kept. `cache` (may be null) keeps full-precision statistics, where the
// job reads them: with options.prefix only the first block's. Every block: statistics of its
// inputs, equalise, round, reconstruct, then the calibration stream goes on through the weights
// that were stored. The head's input is the normed stream after the last block. Throws what
// quantize() throws; options.calibration is set.
void run_calibrated(const models::SourceModel& source, const QuantizeOptions& options,
                    const BlockSteps& steps, const Journal& journal, const CalibrationCache* cache,
                    const NoticeFn& notice, const ProgressFn& progress);

}  // namespace crumb::quant

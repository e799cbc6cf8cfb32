// The table of quant/sensitivity.h for every matrix of the blocks: one walk of the model forward
// and back for the output moments, one block by block for the inputs' second moments.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/plan.h"
#include "quant/sensitivity.h"

namespace crumb::quant {

struct CostOptions {
  int64_t output_windows = 8;  // of the calibration text, for the output moments
  uint64_t seed = 1;           // of the labels
};

class CostJournal;

// In execution order. The rotation, grid, group and damping are options.linear's, the rounding is
// LDLQ whatever its rounding is, statistics are the full-precision model's. options.calibration is
// set. What is in `journal` (null: none) is not measured again, and what is measured is put there;
// the result does not depend on it. Throws what output_moments(), Calibrator and factor() throw.
std::vector<MatrixCosts> measure_model(const models::SourceModel& source,
                                       const QuantizeOptions& options, const CostOptions& costs,
                                       const CostJournal* journal, const ProgressFn& progress);

}  // namespace crumb::quant

// What the parts of a model add to its residual stream, measured on text: which FFN units, KV heads
// and layers to take out first.
//   unit j of a layer      |W_down[:, j]| * rms(a_j), a the gated activation
//   KV head h of a layer   rms over tokens of |sum of W_o[:, q] o_q over its query heads q|
//   layer                  1 - mean cos(x, y) of the stream entering and leaving it
//                          (block influence, arXiv:2403.03853)
#pragma once
#include <cstdint>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/calibration.h"
#include "quant/pruning.h"

namespace crumb::quant {

struct LayerImportance {
  std::vector<double> units;  // [F]
  std::vector<double> heads;  // [Hk]
  double influence = 0;
};

// The same for any number of threads. Throws what source.read throws, Error(kUsage) for blocks that
// the quantizer does not know and for a pruned model; Interrupted.
std::vector<LayerImportance> measure_importance(const models::SourceModel& source,
                                                const CalibrationWindows& windows, int threads,
                                                const ProgressFn& progress);

// The `units` and `heads` of layer `source` that add most, in the order they stand; of equal ones
// the first.
KeptLayer most_important(const LayerImportance& importance, int64_t source, int64_t units,
                         int64_t heads);

}  // namespace crumb::quant

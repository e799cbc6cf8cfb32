// A budget for the whole file, or for the matrices of the blocks, made into options of the job.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "quant/model_costs.h"
#include "quant/plan.h"
#include "quant/widths.h"

namespace crumb::quant {

// One of the two; the other is 0.
struct Budget {
  double linear_bpw = 0;  // of the blocks' matrices, with scales and zeros
  int64_t file_bytes = 0;
};

// Bytes that a budget leaves for the blocks' matrices, which have `weights` weights: of a file,
// what everything else planned in `options` does not take.
int64_t matrix_room(const models::SourceModel& source, const QuantizeOptions& options,
                    const Budget& budget, double weights);

struct BudgetReport {
  Widths widths;
  int64_t budget = 0;  // bytes of the blocks' matrices
  double linear_bpw = 0, uniform_loss[kWidths.size()] = {}, uniform_bpw[kWidths.size()] = {};
  Gains gains;
};

// Sets options->bands, and options->allocation to {"method":"baq", granularity, target_bpw or
// target_size, output_windows, seed, predicted_kld}. The budget is never exceeded; below it remains
// what the units' sizes leave. Throws Error(kUsage) if the smallest widths do not fit, naming the
// target.
BudgetReport fit_budget(const models::SourceModel& source, std::span<const MatrixCosts> costs,
                        const Budget& budget, Granularity granularity,
                        const CostOptions& cost_options, QuantizeOptions* options);

}  // namespace crumb::quant

// The job: source model -> plan -> packed checkpoint and report.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/block_job.h"
#include "quant/journal.h"
#include "quant/plan.h"
#include "quant/recipe.h"
#include "quant/report.h"

namespace crumb::quant {

struct QuantizeReport {
  Plan plan;
  std::vector<TensorReport> tensors;              // quantized matrices, execution order
  std::vector<ReconstructReport> reconstruction;  // of the blocks, if options ask for it
  std::string recipe;                             // the JSON text stored in the file
  uint64_t file_bytes = 0;
  double seconds = 0;
  int64_t peak_rss_bytes = 0;  // of the process so far
};

// What a job may be given beside its recipe.
struct QuantizeHooks {
  // Around the rounding of every block; they need options.calibration. options.reconstruction
  // stands for steps.reconstruct, which must then be empty.
  BlockSteps steps;
  NoticeFn notice;      // lines for the user
  ProgressFn progress;  // called between pieces of work; false throws Interrupted
  const CalibrationCache* cache = nullptr;  // of full-precision statistics, see run_calibrated()
};

// Writes `output` atomically; an existing file stays until the new one is complete. The bytes do
// not depend on the number of threads. Without statistics one tensor is in memory at a time; with
// them one block, and finished blocks go to the journal, the folder OUTPUT.journal: a job that was
// killed, or ended by an exception, goes on from there when it is started again with the same
// source and recipe. The folder is removed when the output is complete. After an exception nothing
// else is left behind. Throws Error:
//   kUsage    bits or groups a matrix cannot have; statistics needed, no calibration given; output
//             is the source (options.source_path) itself
//   kNumeric  a weight or an activation is not finite, naming tensor and row
//   kIo, kBadFile  from reading the source or writing the file
QuantizeReport quantize(const models::SourceModel& source, const QuantizeOptions& options,
                        const std::string& output, const QuantizeHooks& hooks);

// The size of the file that quantize() would write. Throws what make_plan() throws.
int64_t planned_file_bytes(const models::SourceModel& source, const QuantizeOptions& options);

// {"schema":"crumb.quantize/1", config, file_bytes, linear_bpw, head_bits, total_bpw, tensors,
// recipe,
//  seconds, peak_rss_bytes} as JSON text. Every tensor has {name, shape, bits, group, grid, bytes}
// (bits 32, group 0 and grid "none" for floats), a quantized one also {rotation, mse,
// relative_error}, with statistics also output_error, with LDLQ damping. With reconstruction also
// "reconstruction": for every block (but those from the journal) {layer, loss_start, loss_end,
// mse_start, mse_end, kept, steps, changed_codes, seconds, tokens_per_second}, losses of the
// windows kept back.
std::string to_json(const QuantizeReport& report, const models::SourceModel& source);

}  // namespace crumb::quant

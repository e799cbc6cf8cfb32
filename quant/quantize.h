// The job: source model -> plan -> packed checkpoint and report.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/plan.h"
#include "quant/report.h"

namespace crumb::quant {

struct TensorReport {
  std::string name;  // quantized matrices only, execution order
  Distortion distortion;
};
struct QuantizeReport {
  Plan plan;
  std::vector<TensorReport> tensors;
  std::string recipe;  // the JSON text stored in the file
  uint64_t file_bytes = 0;
  double seconds = 0;
  int64_t peak_rss_bytes = 0;  // of the process so far
};

// Writes `output` atomically, one tensor in memory at a time; an existing file stays until the new
// one is complete. The bytes do not depend on the number of threads. `progress` (may be empty) is
// called before each tensor and once after the last, counting weights; when it returns false,
// Interrupted is thrown. After any exception nothing is left behind. Throws Error:
//   kUsage    bits or groups a matrix cannot have; output is the source (options.source_path)
//   itself kNumeric  a weight is not finite, naming tensor and row kIo, kBadFile  from reading the
//   source or writing the file
QuantizeReport quantize(const models::SourceModel& source, const QuantizeOptions& options,
                        const std::string& output, const ProgressFn& progress);

// {"schema":"crumb.recipe/1","program","source":{hash,weights},"stages":[{stage,tensors,bits,group,grid,
//  search,rotation:{hadamard,seed}}]}; group 0 is one scale a row, stage "float" has tensors only.
std::string recipe_json(const models::SourceModel& source, const QuantizeOptions& options);

// {"schema":"crumb.quantize/1", config, file_bytes, linear_bpw, head_bits, total_bpw, tensors,
// recipe,
//  seconds, peak_rss_bytes} as JSON text. Every tensor has {name, shape, bits, group, grid, bytes}
// (bits 32, group 0 and grid "none" for floats), a quantized one also {rotation, mse,
// relative_error}.
std::string to_json(const QuantizeReport& report, const models::SourceModel& source);

}  // namespace crumb::quant

// The job: source model -> plan -> packed checkpoint and report.
#pragma once
#include <string>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/plan.h"

namespace crumb::quant {

struct TensorReport {
  std::string name;
  double mse = 0, relative_error = 0;  // ||w - w'||^2 / n, ||w - w'|| / ||w||
};
struct QuantizeReport {
  Plan plan;
  std::vector<TensorReport> tensors;
  uint64_t file_bytes = 0;
  double seconds = 0;
  int64_t peak_rss_bytes = 0;
};

// Writes `output` atomically; an existing file stays until the new one is complete. Throws Error.
QuantizeReport quantize(const models::SourceModel& source, const QuantizeOptions& options,
                        const std::string& output, const ProgressFn& progress);

// {"schema":"crumb.quantize/1", config, file_bytes, linear_bpw, head_bits, total_bpw, tensors, recipe,
//  seconds, peak_rss_bytes} as JSON text.
std::string to_json(const QuantizeReport& report, const models::SourceModel& source);

}  // namespace crumb::quant

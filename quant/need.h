// What a job will take, before it is begun.
#pragma once
#include <cstdint>

#include "models/config.h"
#include "quant/block_job.h"
#include "quant/model_costs.h"
#include "quant/plan.h"

namespace crumb::quant {

struct QuantizeNeed {
  int64_t bytes = 0;      // peak of the process, beside the mapped source
  double operations = 0;  // multiplications and additions of matrix products, calibrated jobs only
};
QuantizeNeed quantize_need(const models::ModelConfig& config, const QuantizeOptions& options,
                           const BlockSteps& steps);

// What measure_model() takes, before widths are chosen.
QuantizeNeed allocation_need(const models::ModelConfig& config, const QuantizeOptions& options,
                             const CostOptions& costs);

// The larger peak and the work of both: one after the other.
QuantizeNeed both(const QuantizeNeed& first, const QuantizeNeed& then);

// Operations a second of one thread in products of the kind above, measured for 50 ms.
double measure_rate();

}  // namespace crumb::quant

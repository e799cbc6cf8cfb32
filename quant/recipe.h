// The recipe of a file and the report of a job, as JSON text.
#pragma once
#include <string>

#include "models/source.h"
#include "quant/plan.h"

namespace crumb::quant {

// {"schema":"crumb.recipe/2","program","source":{hash,weights},
//  "calibration":{text,hash,windows,length,seed,inputs} or null,
//  "stages":[{stage,tensors,...}]}; stage "round" has rounding, bits, group (0 is one scale a row),
// grid, rule, rotation:{hadamard,seed} and, for LDLQ, order, scales, greedy_passes, damping; stage
// "float" has tensors only; stage "reconstruct", if there is one, has method, epochs, batch,
// kept_back, weight_rate, scale_rate, loss, seed. "bits" holds the widths of single matrices by
// name, if there are any.
std::string recipe_json(const models::SourceModel& source, const QuantizeOptions& options);

}  // namespace crumb::quant

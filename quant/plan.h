// Which tensor gets which bits, decided and shown before the work.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/checkpoint.h"
#include "models/config.h"
#include "quant/rtn.h"

namespace crumb::quant {

struct QuantizeOptions {
  RtnOptions linear;                       // every matrix of the blocks
  RtnOptions embedding;                    // embed_tokens (and the tied head)
  RtnOptions head;                         // lm_head, if it is a tensor of its own
  int threads = 0;
};

struct PlanRow {
  models::TensorInfo tensor;
  models::MatrixPlan matrix;               // bits 32 for what stays float
  int64_t bytes = 0;
  double bpw = 0;                          // with scales and zeros
};
struct Plan {
  std::vector<PlanRow> rows;               // execution order
  int64_t bytes = 0;                       // of all tensors
  double linear_bpw = 0, head_bits = 0, total_bpw = 0;
};
// Throws Error(kUsage) for bits or groups a matrix cannot have, naming both.
Plan make_plan(const models::ModelConfig& config, const QuantizeOptions& options);

}  // namespace crumb::quant

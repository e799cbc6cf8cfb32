// Which tensor gets which bits, decided and shown before the work.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/config.h"
#include "quant/rtn.h"

namespace crumb::quant {

struct QuantizeOptions {
  RtnOptions linear;     // every matrix of the blocks
  RtnOptions embedding;  // embed_tokens (and the tied head)
  RtnOptions head;       // lm_head, if it is a tensor of its own
  int threads = 0;       // 0: all hardware threads
  std::string
      source_path;  // where the source was read from, if known: the output must be another file
};

struct PlanRow {
  models::TensorInfo tensor;
  models::MatrixPlan matrix;  // bits 32 for what stays float
  int64_t bytes = 0;          // in the file, each part padded to 64
  double bpw = 0;             // with scales and zeros
};
// Averages are stored bits (codes, scales, zeros, padding) over the weights of the model.
struct Plan {
  std::vector<PlanRow> rows;  // execution order
  int64_t bytes = 0;          // of all tensors
  double linear_bpw = 0;      // matrices of the blocks
  double head_bits = 0;       // the head, or the embedding it is tied to
  double total_bpw = 0;       // all tensors
};

// The options that hold for a tensor of this role; norms and biases have none and stay float.
const RtnOptions& options_for(const QuantizeOptions& options, models::TensorRole role);

// Throws Error(kUsage) for bits or groups a matrix cannot have, naming both.
Plan make_plan(const models::ModelConfig& config, const QuantizeOptions& options);
// The plan an existing file was made by.
Plan plan_of(const models::Checkpoint& checkpoint);

std::string_view grid_name(kernels::Grid grid);  // "seq", "lsq", "asym"

}  // namespace crumb::quant

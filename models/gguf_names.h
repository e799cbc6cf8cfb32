// Names and row orders of GGUF models against ours, for the importer and the test writer. Internal
// to models/.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "models/tensors.h"

namespace crumb::models {

// What distinguishes one foreign architecture from another.
struct GgufArchitecture {
  std::string_view name;
  bool qkv_bias;
  // Query and key rows pair (i, i + Dh/2) for RoPE and must be permuted to (2i, 2i + 1).
  bool half_split;
};
// nullptr if it is not supported.
const GgufArchitecture* find_gguf_architecture(std::string_view name);

// "blk.3.attn_q.weight" for model.layers.3.self_attn.q_proj.
std::string gguf_tensor_name(const TensorInfo& tensor);

// A query or key projection or its bias.
bool is_rotary(const TensorInfo& tensor);

// The file's row that is row n of ours: in heads of Dh rows, (2i, 2i + 1) from (i, i + Dh/2). n if
// head_dim is 0.
int64_t half_split_row(int64_t n, int64_t head_dim);

}  // namespace crumb::models

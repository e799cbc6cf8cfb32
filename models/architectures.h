// What distinguishes one family of models from another: a row of a table each. Importers ask it;
// the engine only knows the config that it leads to.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "models/config.h"
#include "models/tensors.h"

namespace crumb::models {

struct Architecture {
  std::string_view name = {};         // in GGUF, and in our config
  std::string_view class_name = {};   // in Hugging Face's config.json, "architectures"
  std::string_view class_alias = {};  // another one of the same arithmetic, or empty
  bool qkv_bias = false;
  bool qk_norm = false;
  bool post_norms = false;
  Activation activation = Activation::kSilu;
  bool scaled_embedding = false;  // by sqrt(D)
  int64_t window_every = 0;       // default period of the layers without window; 0: none is
  float rope_theta_local = 0;     // default, of the layers with window
  // GGUF files pair (i, i + Dh/2) of query and key rows; they must be permuted to (2i, 2i + 1).
  // Hugging Face's always do.
  bool half_split = true;
  bool norm_plus_one = false;  // Hugging Face's norms lack 1 (GGUF's have it added)
  bool fused = false;          // q, k, v in one matrix, gate and up in one
};

// nullptr if there is none of that name or class.
const Architecture* find_architecture(std::string_view name);
const Architecture* find_architecture_class(std::string_view class_name);
// "gemma3, llama, ...": for messages.
std::string architecture_names();

// The options of the row in `config`, whose dimensions must be set.
void apply(const Architecture& architecture, ModelConfig& config);

// Where a tensor of ours lies in a foreign file: its name, and the first row for fused matrices.
struct ForeignPlace {
  std::string name;
  int64_t first_row = 0;
};
ForeignPlace gguf_place(const TensorInfo& tensor, const Architecture& architecture,
                        const ModelConfig& config);
ForeignPlace hugging_face_place(const TensorInfo& tensor, const Architecture& architecture,
                                const ModelConfig& config);

// Rows of a fused foreign tensor; 0 if it is not fused.
int64_t fused_rows(const TensorInfo& tensor, const Architecture& architecture,
                   const ModelConfig& config);

// A query or key projection, its bias, or the norm of a query or key.
bool is_rotary(const TensorInfo& tensor);

// The file's row that is row n of ours: in heads of Dh rows, (2i, 2i + 1) from (i, i + Dh/2). n if
// head_dim is 0.
int64_t half_split_row(int64_t n, int64_t head_dim);

}  // namespace crumb::models

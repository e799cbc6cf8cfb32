// The one table of tensors a model consists of. Importer, checkpoint, engine, quantizer and tests
// ask it.
//
// Names are Hugging Face's without the trailing ".weight" for matrices that may be quantized:
//   model.embed_tokens                       [V, D]   also the head if config.tied_head
//   model.layers.I.input_layernorm.weight    [D]
//   model.layers.I.self_attn.{q,k,v,o}_proj  [H*Dh | Hk*Dh | Hk*Dh | D, D | D | D | H*Dh]
//   model.layers.I.self_attn.{q,k,v}_proj.bias   if config.qkv_bias
//   model.layers.I.self_attn.{q,k}_norm.weight  [Dh]  if config.block.qk_norm
//   model.layers.I.attention_output_layernorm.weight  [D]  if config.block.post_norms
//   model.layers.I.post_attention_layernorm.weight  [D]  (before the MLP)
//   model.layers.I.mlp.{gate,up,down}_proj   [F, D] [F, D] [D, F]
//   model.layers.I.mlp_output_layernorm.weight  [D]  if config.block.post_norms
//   model.norm.weight                        [D]
//   lm_head                                  [V, D]   unless tied
// F, H and Hk are the layer's own in a pruned model (models/config.h, layer_size()).
// Rows of q_proj and k_proj (and their biases and norms) are stored in interleaved order: RoPE
// turns the pairs (2i, 2i+1) of a head. Importers of half-split (NeoX) models permute the rows;
// scores are unchanged.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/config.h"

namespace crumb::models {

enum class TensorRole : uint8_t { kEmbedding, kHead, kNorm, kBias, kLinear };

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;  // [n] or [N, K]
  TensorRole role = TensorRole::kLinear;
  int64_t layer = -1;  // -1 outside the blocks
};

int64_t weights_of(const TensorInfo& tensor);

constexpr bool may_be_quantized(TensorRole role) {
  return role == TensorRole::kEmbedding || role == TensorRole::kHead || role == TensorRole::kLinear;
}

// All tensors of the model in execution order: embedding, blocks, final norm, head.
std::vector<TensorInfo> tensor_table(const ModelConfig& config);

// "model.layers.7.mlp.gate_proj" from (7, "mlp.gate_proj").
std::string layer_tensor(int64_t layer, const std::string& suffix);

}  // namespace crumb::models

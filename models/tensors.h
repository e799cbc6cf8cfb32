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
//
// A model that sees has more (D, F of config.vision, S the image's side, P patches in all, p a
// patch's):
//   vision.patch_embed                       [D, 3*p*p]  columns: colour, row, column
//   vision.patch_embed.bias                  [D]      if patch_bias
//   vision.class_embed                       [D]      if class_token
//   vision.position_embed                    [P (+ 1), D]  the class row first
//   vision.pre_norm.{weight,bias}            [D]      if pre_norm
//   vision.layers.I.norm1.{weight,bias}      [D]
//   vision.layers.I.{q,k,v,o}_proj           [D, D]   each followed by its .bias [D]
//   vision.layers.I.scale1                   [D]      if layer_scale
//   vision.layers.I.norm2.{weight,bias}      [D]
//   vision.layers.I.{fc1,fc2}                [F, D] [D, F]  each followed by its .bias
//   vision.layers.I.scale2                   [D]      if layer_scale
//   vision.final_norm.{weight,bias}          [D]      if final_norm
//   projector.linear_1                       [hidden, D*u*u]  [D of the decoder, ..] if hidden is 0
//   projector.linear_2                       [D of the decoder, hidden]  if hidden is not 0
//   projector.linear_{1,2}.bias                       if projector_bias
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/config.h"

namespace crumb::models {

// kTable: floats in several rows, never quantized.
enum class TensorRole : uint8_t { kEmbedding, kHead, kNorm, kBias, kLinear, kTable };

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

// All tensors of the decoder in execution order: embedding, blocks, final norm, head.
std::vector<TensorInfo> tensor_table(const ModelConfig& config);
// Those of tower and projector, in execution order; empty for a model that does not see. Their
// `layer` is -1: layers are the decoder's.
std::vector<TensorInfo> vision_table(const ModelConfig& config);
// Both, as a file holds them: the decoder's, then the others.
std::vector<TensorInfo> whole_table(const ModelConfig& config);
// "vision.layers.7.fc1" from (7, "fc1").
std::string vision_tensor(int64_t layer, const std::string& suffix);

// "model.layers.7.mlp.gate_proj" from (7, "mlp.gate_proj").
std::string layer_tensor(int64_t layer, const std::string& suffix);

}  // namespace crumb::models

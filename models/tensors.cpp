#include "models/tensors.h"

#include <functional>
#include <numeric>

namespace crumb::models {

std::string layer_tensor(int64_t layer, const std::string& suffix) {
  return "model.layers." + std::to_string(layer) + "." + suffix;
}

int64_t weights_of(const TensorInfo& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<TensorInfo> tensor_table(const ModelConfig& config) {
  const int64_t D = config.dim, V = config.vocab;
  std::vector<TensorInfo> table;
  table.reserve(static_cast<std::size_t>(3 + config.layers * 16));
  table.push_back({"model.embed_tokens", {V, D}, TensorRole::kEmbedding, -1});
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerSize size = layer_size(config, layer);
    const int64_t F = size.ffn, kv_rows = size.kv_heads * config.head_dim;
    const int64_t q_rows = config.heads / config.kv_heads * kv_rows;
    const auto add = [&](const std::string& suffix, std::vector<int64_t> shape, TensorRole role) {
      table.push_back({layer_tensor(layer, suffix), std::move(shape), role, layer});
    };
    add("input_layernorm.weight", {D}, TensorRole::kNorm);
    const struct {
      const char* name;
      int64_t rows;
    } projections[] = {
        {"self_attn.q_proj", q_rows}, {"self_attn.k_proj", kv_rows}, {"self_attn.v_proj", kv_rows}};
    for (const auto& projection : projections) {
      add(projection.name, {projection.rows, D}, TensorRole::kLinear);
      if (config.qkv_bias)
        add(std::string(projection.name) + ".bias", {projection.rows}, TensorRole::kBias);
    }
    if (config.block.qk_norm)
      for (const char* name : {"self_attn.q_norm.weight", "self_attn.k_norm.weight"})
        add(name, {config.head_dim}, TensorRole::kNorm);
    add("self_attn.o_proj", {D, q_rows}, TensorRole::kLinear);
    if (config.block.post_norms) add("attention_output_layernorm.weight", {D}, TensorRole::kNorm);
    add("post_attention_layernorm.weight", {D}, TensorRole::kNorm);
    add("mlp.gate_proj", {F, D}, TensorRole::kLinear);
    add("mlp.up_proj", {F, D}, TensorRole::kLinear);
    add("mlp.down_proj", {D, F}, TensorRole::kLinear);
    if (config.block.post_norms) add("mlp_output_layernorm.weight", {D}, TensorRole::kNorm);
  }
  table.push_back({"model.norm.weight", {D}, TensorRole::kNorm, -1});
  if (!config.tied_head) table.push_back({"lm_head", {V, D}, TensorRole::kHead, -1});
  return table;
}

}  // namespace crumb::models

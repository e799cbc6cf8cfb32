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

std::string vision_tensor(int64_t layer, const std::string& suffix) {
  return "vision.layers." + std::to_string(layer) + "." + suffix;
}

namespace {

void add_projector(const VisionConfig& v, int64_t out, std::vector<TensorInfo>& table) {
  const int64_t columns = projector_columns(v);
  const auto add = [&](const std::string& name, int64_t rows, int64_t K) {
    table.push_back({name, {rows, K}, TensorRole::kLinear, -1});
    if (v.projector_bias) table.push_back({name + ".bias", {rows}, TensorRole::kBias, -1});
  };
  add("projector.linear_1", v.hidden > 0 ? v.hidden : out, columns);
  if (v.hidden > 0) add("projector.linear_2", out, v.hidden);
}

}  // namespace

std::vector<TensorInfo> vision_table(const ModelConfig& config) {
  std::vector<TensorInfo> table;
  if (!config.vision) return table;
  const VisionConfig& v = *config.vision;
  const int64_t D = v.dim, F = v.ffn;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, TensorRole role) {
    table.push_back({name, std::move(shape), role, -1});
  };
  const auto norm = [&](const std::string& name) {
    add(name + ".weight", {D}, TensorRole::kNorm);
    add(name + ".bias", {D}, TensorRole::kBias);
  };
  const auto linear = [&](const std::string& name, int64_t rows, int64_t columns, bool bias) {
    add(name, {rows, columns}, TensorRole::kLinear);
    if (bias) add(name + ".bias", {rows}, TensorRole::kBias);
  };
  linear("vision.patch_embed", D, 3 * v.patch * v.patch, v.patch_bias);
  if (v.class_token) add("vision.class_embed", {D}, TensorRole::kBias);
  add("vision.position_embed", {vision_tokens(v), D}, TensorRole::kTable);
  if (v.pre_norm) norm("vision.pre_norm");
  for (int64_t layer = 0; layer < v.layers; ++layer) {
    const std::string in = vision_tensor(layer, "");
    norm(in + "norm1");
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) linear(in + name, D, D, true);
    if (v.layer_scale) add(in + "scale1", {D}, TensorRole::kNorm);
    norm(in + "norm2");
    linear(in + "fc1", F, D, true);
    linear(in + "fc2", D, F, true);
    if (v.layer_scale) add(in + "scale2", {D}, TensorRole::kNorm);
  }
  if (v.final_norm) norm("vision.final_norm");
  add_projector(v, config.dim, table);
  return table;
}

std::vector<TensorInfo> whole_table(const ModelConfig& config) {
  std::vector<TensorInfo> table = tensor_table(config);
  for (TensorInfo& info : vision_table(config)) table.push_back(std::move(info));
  return table;
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

#include "quant/train/cuda/float_model.h"

#include "models/tensors.h"

namespace crumb::quant::train::cuda {

DeviceArray<bf16> upload_matrix(const models::SourceModel& source, const std::string& name,
                                int64_t weights) {
  std::vector<float> w(static_cast<std::size_t>(weights));
  source.read(name, w);
  const std::vector<bf16> rounded = to_bf16(w);
  return DeviceArray<bf16>(std::span(rounded));
}

FloatModel::FloatModel(const models::SourceModel& source) {
  const models::ModelConfig& c = source.config;
  models::require_plain_block(c, "training");
  require_supported(c);
  const ParameterLayout layout = parameter_layout(c);
  const auto add = [&](DeviceArray<bf16> matrix) {
    matrices_.push_back(std::move(matrix));
    return matrices_.back().data();
  };
  weights_.embedding = add(upload_matrix(source, "model.embed_tokens", c.vocab * c.dim));
  weights_.head =
      c.tied_head ? weights_.embedding : add(upload_matrix(source, "lm_head", c.vocab * c.dim));
  std::vector<float> norms;
  const auto read_norm = [&](const std::string& name) {
    norms.resize(norms.size() + static_cast<std::size_t>(c.dim));
    source.read(name, std::span(norms).last(static_cast<std::size_t>(c.dim)));
  };
  for (int64_t l = 0; l < c.layers; ++l) {
    read_norm(models::layer_tensor(l, "input_layernorm.weight"));
    read_norm(models::layer_tensor(l, "post_attention_layernorm.weight"));
  }
  read_norm("model.norm.weight");
  norms_ = DeviceArray<float>(std::span(norms));
  weights_.final_norm = norms_.data() + 2 * c.layers * c.dim;
  std::vector<float> biases(static_cast<std::size_t>(layout.biases));
  for (const MatrixPart& part : matrix_parts(layout))
    if (part.bias_at >= 0)
      source.read(
          part.name + ".bias",
          std::span(biases).subspan(static_cast<std::size_t>(part.bias_at - layout.biases_at),
                                    static_cast<std::size_t>(part.N)));
  if (!biases.empty()) biases_ = DeviceArray<float>(std::span(biases));
  for (int64_t l = 0; l < c.layers; ++l) {
    LayerWeights layer;
    layer.attn_norm = norms_.data() + 2 * l * c.dim;
    layer.mlp_norm = norms_.data() + (2 * l + 1) * c.dim;
    const auto& slots = layout.layers[static_cast<std::size_t>(l)];
    if (slots[0].bias_at >= 0) layer.bias = biases_.data() + slots[0].bias_at - layout.biases_at;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      std::vector<float> w(static_cast<std::size_t>(slots[i].N * slots[i].K));
      std::size_t at = 0;
      for (std::size_t part = 0; part < slots[i].names.size(); ++part) {
        const auto n = static_cast<std::size_t>(slots[i].rows[part] * slots[i].K);
        source.read(slots[i].names[part], std::span(w).subspan(at, n));
        at += n;
      }
      const std::vector<bf16> rounded = to_bf16(w);
      layer.matrix[i] = add(DeviceArray<bf16>(std::span(rounded)));
    }
    weights_.layers.push_back(layer);
  }
}

}  // namespace crumb::quant::train::cuda

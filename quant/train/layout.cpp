#include "quant/train/layout.h"

#include "kernels/layout.h"
#include "models/tensors.h"

namespace crumb::quant::train {

namespace {

// Takes its place behind what is there; scale_at counts from the first scale.
MatrixSlot placed(std::vector<std::string> names, std::vector<int64_t> rows, int64_t K,
                  int64_t group, ParameterLayout& layout) {
  MatrixSlot s;
  s.names = std::move(names);
  for (const int64_t n : rows) s.N += n;
  s.rows = std::move(rows);
  s.K = K;
  s.groups = kernels::group_count(K, group == 0 ? K : group);
  s.master_at = layout.masters;
  s.scale_at = layout.scales;
  layout.masters += s.N * K;
  layout.scales += s.N * s.groups;
  return s;
}

}  // namespace

ParameterLayout parameter_layout(const models::ModelConfig& c, int64_t group, bool embedding) {
  ParameterLayout layout;
  layout.group = group;
  for (int64_t l = 0; l < c.layers; ++l) {
    const models::LayerSize size = models::layer_size(c, l);
    const int64_t kv = size.kv_heads * c.head_dim, q = c.heads / c.kv_heads * kv, F = size.ffn;
    const auto slot = [&](std::vector<std::string> suffixes, std::vector<int64_t> rows, int64_t K) {
      for (std::string& suffix : suffixes) suffix = models::layer_tensor(l, suffix);
      return placed(std::move(suffixes), std::move(rows), K, group, layout);
    };
    // Braces evaluate in order, so the slots stand in this order in memory.
    layout.layers.push_back(
        {slot({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {q, kv, kv}, c.dim),
         slot({"self_attn.o_proj"}, {c.dim}, q),
         slot({"mlp.gate_proj", "mlp.up_proj"}, {F, F}, c.dim),
         slot({"mlp.down_proj"}, {c.dim}, F)});
  }
  layout.block_masters = layout.masters;
  if (embedding) layout.embedding = placed({"model.embed_tokens"}, {c.vocab}, c.dim, 0, layout);
  layout.norms_at = layout.masters;
  layout.norms = (2 * c.layers + 1) * c.dim;
  layout.biases_at = layout.norms_at + layout.norms;
  if (c.qkv_bias)
    for (auto& layer : layout.layers) {
      layer[0].bias_at = layout.biases_at + layout.biases;
      layout.biases += layer[0].N;
    }
  layout.scales_at = layout.biases_at + layout.biases;
  layout.size = layout.scales_at + layout.scales;
  for (auto& layer : layout.layers)
    for (MatrixSlot& s : layer) s.scale_at += layout.scales_at;
  if (layout.embedding) layout.embedding->scale_at += layout.scales_at;
  return layout;
}

std::vector<MatrixPart> matrix_parts(const ParameterLayout& layout) {
  std::vector<MatrixPart> parts;
  const auto add = [&](const MatrixSlot& slot) {
    int64_t row = 0;
    for (std::size_t i = 0; i < slot.names.size(); ++i) {
      parts.push_back({slot.names[i], slot.rows[i], slot.K, slot.master_at + row * slot.K,
                       slot.scale_at + row * slot.groups,
                       slot.bias_at < 0 ? -1 : slot.bias_at + row, slot.groups});
      row += slot.rows[i];
    }
  };
  for (const auto& layer : layout.layers)
    for (const MatrixSlot& slot : layer) add(slot);
  if (layout.embedding) add(*layout.embedding);
  return parts;
}

}  // namespace crumb::quant::train

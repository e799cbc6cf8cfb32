#include "models/vision_towers.h"

#include "models/errors.h"

namespace crumb::models {
namespace {

constexpr TowerName kDinoNames[] = {
    {"patch_embed", "embeddings.patch_embeddings.projection"},
    {"class_embed", "embeddings.cls_token"},
    {"position_embed", "embeddings.position_embeddings"},
    {"final_norm", "layernorm"},
};
constexpr TowerName kDinoLayerNames[] = {
    {"norm1", "norm1"},
    {"q_proj", "attention.attention.query"},
    {"k_proj", "attention.attention.key"},
    {"v_proj", "attention.attention.value"},
    {"o_proj", "attention.output.dense"},
    {"scale1", "layer_scale1.lambda1"},
    {"norm2", "norm2"},
    {"fc1", "mlp.fc1"},
    {"fc2", "mlp.fc2"},
    {"scale2", "layer_scale2.lambda1"},
};
constexpr std::string_view kDinoIgnored[] = {"embeddings.mask_token"};

// CLIP's, SigLIP's and Idefics3's differ in what they have, not in names.
constexpr TowerName kClipNames[] = {
    {"patch_embed", "embeddings.patch_embedding"},
    {"class_embed", "embeddings.class_embedding"},
    {"position_embed", "embeddings.position_embedding.weight"},
    {"pre_norm", "pre_layrnorm"},
    {"final_norm", "post_layernorm"},
};
constexpr TowerName kClipLayerNames[] = {
    {"norm1", "layer_norm1"},
    {"q_proj", "self_attn.q_proj"},
    {"k_proj", "self_attn.k_proj"},
    {"v_proj", "self_attn.v_proj"},
    {"o_proj", "self_attn.out_proj"},
    {"norm2", "layer_norm2"},
    {"fc1", "mlp.fc1"},
    {"fc2", "mlp.fc2"},
};
// CLIP's last norm is for the class row only; SigLIP's head pools.
constexpr std::string_view kClipIgnored[] = {"embeddings.position_ids", "post_layernorm."};
constexpr std::string_view kSiglipIgnored[] = {"embeddings.position_ids", "head."};

constexpr VisionTower kTowers[] = {
    {.name = "clip_vision_model",
     .class_token = true,
     .patch_bias = false,
     .pre_norm = true,
     .final_norm = false,
     .norm_eps = 1e-5f,
     .activation = "quick_gelu",
     .patch = 32,
     .layer_prefix = "encoder.layers.",
     .names = kClipNames,
     .layer_names = kClipLayerNames,
     .ignored = kClipIgnored},
    {.name = "dinov2",
     .class_token = true,
     .layer_scale = true,
     .activation = "gelu",
     .patch = 14,
     .layer_prefix = "encoder.layer.",
     .names = kDinoNames,
     .layer_names = kDinoLayerNames,
     .ignored = kDinoIgnored},
    {.name = "idefics3_vision",
     .model_types = {"idefics3", "smolvlm_vision"},
     .activation = "gelu_pytorch_tanh",
     .dim = 1152,
     .heads = 16,
     .patch = 32,
     .layer_prefix = "encoder.layers.",
     .names = kClipNames,
     .layer_names = kClipLayerNames,
     .ignored = kSiglipIgnored},
    {.name = "siglip_vision_model",
     .activation = "gelu_pytorch_tanh",
     .patch = 16,
     .layer_prefix = "encoder.layers.",
     .names = kClipNames,
     .layer_names = kClipLayerNames,
     .ignored = kSiglipIgnored},
};

constexpr std::string_view kLlamaDefaults =
    R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000})";

constexpr Composite kComposites[] = {
    {.model_type = "idefics3",
     .other_type = "smolvlm",
     .tower = "idefics3_vision",
     .spellings = {{"model.text_model.", "lm_head", "model.vision_model.", "model.connector."}},
     .projector_1 = "modality_projection.proj",
     .projector_bias = false,
     .unshuffle = 2,
     .before = "<fake_token_around_image><global-img>",
     .after = "<fake_token_around_image>",
     .image_text = "<image>",
     .text_defaults = kLlamaDefaults},
    {.model_type = "llava",
     .tower = "clip_vision_model",
     .spellings = {{"language_model.model.", "language_model.lm_head", "vision_tower.vision_model.",
                    "multi_modal_projector."},
                   {"model.language_model.", "lm_head", "model.vision_tower.vision_model.",
                    "model.multi_modal_projector."}},
     .projector_1 = "linear_1",
     .projector_2 = "linear_2",
     .by_layer = true,
     .image_text = "<image>",
     .after_mark = "\n",
     .text_defaults = kLlamaDefaults},
};

// The row of a tensor, or of the module that it is a part of: "fc1.bias" of "fc1".
std::string find_name(std::span<const TowerName> names, std::string_view ours, TensorRole role) {
  for (const TowerName& name : names) {
    if (name.ours == ours)
      return std::string(name.theirs) + (role == TensorRole::kLinear ? ".weight" : "");
    if (ours.starts_with(name.ours) && ours[name.ours.size()] == '.')
      return std::string(name.theirs) + std::string(ours.substr(name.ours.size()));
  }
  throw Error(ExitCode::kInternal, "tensor " + std::string(ours) + " has no name in a folder");
}

}  // namespace

const VisionTower* find_tower(std::string_view name) {
  for (const VisionTower& row : kTowers) {
    if (!name.empty() && row.name == name) return &row;
    for (const std::string_view type : row.model_types)
      if (!name.empty() && type == name) return &row;
  }
  return nullptr;
}

std::string tower_names() {
  std::string names;
  for (const VisionTower& row : kTowers)
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

const Composite* find_composite(std::string_view model_type) {
  for (const Composite& row : kComposites)
    if (!model_type.empty() && (row.model_type == model_type || row.other_type == model_type))
      return &row;
  return nullptr;
}

std::string foreign_name(const TensorInfo& tensor, const VisionTower& tower) {
  constexpr std::string_view kOurs = "vision.", kLayers = "vision.layers.";
  const std::string_view name = tensor.name;
  if (!name.starts_with(kLayers))
    return find_name(tower.names, name.substr(kOurs.size()), tensor.role);
  const auto dot = name.find('.', kLayers.size());
  const std::string layer(name.substr(kLayers.size(), dot - kLayers.size()));
  return std::string(tower.layer_prefix) + layer + "." +
         find_name(tower.layer_names, name.substr(dot + 1), tensor.role);
}

}  // namespace crumb::models

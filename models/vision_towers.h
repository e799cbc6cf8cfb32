// What distinguishes one family of vision towers from another, and where a Hugging Face folder
// keeps towers and projectors: a row of a table each. Importers ask it; the engine only knows the
// config that it leads to (models/vision.h).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/tensors.h"
#include "models/vision.h"

namespace crumb::models {

// What a tensor of ours, or a module with .weight and .bias, is called in a folder.
struct TowerName {
  std::string_view ours, theirs;
};

struct VisionTower {
  std::string_view name = {};  // in our config, and "model_type" in a folder's config.json
  std::string_view model_types[2] = {};  // others of the same arithmetic, or empty
  bool class_token = false, patch_bias = true, pre_norm = false, final_norm = true;
  bool layer_scale = false;
  // What config.json may leave out: "layer_norm_eps", "hidden_act", sizes.
  float norm_eps = 1e-6f;
  std::string_view activation = {};
  int64_t dim = 768, ffn = 3072, layers = 12, heads = 12, image = 224, patch = 0;
  std::string_view layer_prefix = {};  // theirs, before the layer's number
  std::span<const TowerName> names = {}, layer_names = {};
  std::span<const std::string_view> ignored = {};  // prefixes of tensors that make no rows
};

// How a folder that holds tower, projector and decoder together is laid out. Prefixes may come in
// two spellings: as published, and as newer versions of the transformers package write them.
struct Composite {
  std::string_view model_type = {};  // of the folder's config.json
  std::string_view other_type = {};  // another one laid out alike, or empty
  std::string_view tower = {};       // "model_type" of its "vision_config", if that does not say it
  struct Prefixes {
    std::string_view text, head, tower, projector;  // of "model.", "lm_head", ...
  };
  Prefixes spellings[2] = {};
  std::string_view projector_1 = {};  // names behind the prefix
  std::string_view projector_2 = {};  // empty: one matrix only
  bool projector_bias = true;
  int64_t unshuffle = 1;  // "scale_factor", if config.json does not say it
  // Rows are a layer's output ("vision_feature_layer") without the last norm; else the encoder's.
  bool by_layer = false;
  // Of the prompt, as in VisionConfig; where the chat template does not write image_text, there is
  // none, and the text after an image is after_mark, if that is not empty.
  std::string_view before = {}, after = {}, image_text = {}, after_mark = {};
  std::string_view text_defaults = {};  // JSON of what its "text_config" may leave out
};

// nullptr if there is none of that name or "model_type".
const VisionTower* find_tower(std::string_view name);
std::string tower_names();  // "clip_vision_model, dinov2, ...": for messages
const Composite* find_composite(std::string_view model_type);

// The name in a folder, without its prefix, of a tensor "vision.*" of ours.
std::string foreign_name(const TensorInfo& tensor, const VisionTower& tower);

}  // namespace crumb::models

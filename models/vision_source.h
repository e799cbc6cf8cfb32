// Weights of towers and projectors in Hugging Face folders. Internal to models/, but for
// add_vision().
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>

#include "models/safetensors_set.h"
#include "models/source.h"
#include "models/vision_towers.h"

namespace crumb::models {

// Gives a text model eyes: the tower of a folder (its config.json, preprocessor_config.json and
// safetensors) and a projector, a safetensors file with projector.linear_1.weight [hidden, D u^2]
// and projector.linear_2.weight [decoder's D, hidden] or with the first only, as models/tensors.h
// has them, and their biases, all or none. u follows from the shape; the file's metadata may have
// "before", "after" and "image_text" of the prompt and "activation" (gelu, quick_gelu, gelu_tanh).
// FormatError names the tensor or field; Error(kUsage) if the model sees already.
void add_vision(const std::string& folder, const std::string& projector, SourceModel* model);

// Tensors "vision.*" and "projector.*" by our name, and what was used of the folder's.
struct VisionArrays {
  std::map<std::string, const StoredArray*, std::less<>> arrays;
  std::set<std::string, std::less<>> used;
};
struct VisionPlaces {
  const VisionTower* tower;
  std::string tower_prefix;
  std::string projector[2];  // whole names of the matrices, without ".weight"
};
// All of vision_table(config) in the folder. FormatError names what is missing or misshapen.
VisionArrays match_vision(const SafetensorsSet& weights, const ModelConfig& config,
                          const VisionPlaces& places, const std::string& folder);
// One of them, as floats; NaN and infinity are Error(kNumeric).
void read_array(const StoredArray& array, std::string_view name, const std::string& folder,
                std::span<float> out);

}  // namespace crumb::models

// config.json and preprocessor_config.json of a vision tower, or of a folder that holds tower,
// projector and decoder, as the transformers package writes them -> our config.
#pragma once
#include <optional>
#include <string>

#include "models/vision.h"
#include "models/vision_towers.h"

namespace crumb::models {

// The tower alone: no projector yet (unshuffle 1, hidden 0). FormatError names the field: an
// unknown "model_type", an unlawful dimension, or what would change the arithmetic and is not
// supported (other activations, biases left out, nearest filters, values not divided by 255).
VisionConfig read_tower_config(const std::string& folder);

struct CompositeConfig {
  const Composite* composite = nullptr;
  VisionConfig vision;       // with the projector, but for `hidden`
  int64_t tower_layers = 0;  // in the folder; the last ones may be unused
  std::string text;          // the decoder's own config.json
};
// Nothing if the text of a config.json is not of such a folder. FormatError as above.
std::optional<CompositeConfig> read_composite_config(const std::string& text,
                                                     const std::string& folder);

}  // namespace crumb::models

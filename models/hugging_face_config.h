// config.json of a Hugging Face folder -> our config.
#pragma once
#include <string>

#include "models/architectures.h"
#include "models/config.h"

namespace crumb::models {

struct HuggingFaceConfig {
  ModelConfig config;
  const Architecture* architecture = nullptr;
  std::vector<int64_t> eos;  // "eos_token_id", one or several
};

// FormatError names the field: an unknown architecture, a missing or unlawful dimension, and
// whatever would change the arithmetic and is not supported (other RoPE scalings, biases, soft
// capping, partial RoPE). `tied_head` is what the file says, or the family's default.
HuggingFaceConfig read_hugging_face_config(const std::string& text, const std::string& file);

}  // namespace crumb::models

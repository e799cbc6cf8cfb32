// What a model is: dimensions and options, independent of the file it came from.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace crumb::models {

inline constexpr int64_t kMaxHeadDim = 1024;

struct ModelConfig {
  std::string architecture;  // "llama", "qwen2"
  std::string name;          // human name, e.g. "SmolLM2 135M 8k Lc100K Mix1 Ep2"
  int64_t layers = 0;        // L
  int64_t dim = 0;           // D
  int64_t ffn = 0;           // F
  int64_t heads = 0;         // H
  int64_t kv_heads = 0;      // Hk, divides H
  int64_t head_dim = 0;      // Dh, even
  int64_t vocab = 0;         // V
  int64_t context = 0;       // trained context length in tokens
  float rope_theta = 10000.0f;
  float norm_eps = 1e-5f;
  bool tied_head = true;  // the head is the embedding
  bool qkv_bias = false;  // q, k, v have a bias (Qwen2)
};

// Ranges and cross-checks of every field, before any tensor is looked at. Throws FormatError naming
// `file`, the field, the range and the value found.
void validate(const ModelConfig& config, const std::string& file);

// JSON text of a config (the `config` record of a checkpoint) and back; from_json validates.
std::string to_json(const ModelConfig& config);
ModelConfig config_from_json(const std::string& text, const std::string& file);

// Suggested sampling of a model's authors; absent values are negative.
struct GenerationDefaults {
  float temperature = -1, top_p = -1, min_p = -1, repeat_penalty = -1;
  int64_t top_k = -1;
};

}  // namespace crumb::models

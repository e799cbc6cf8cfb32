// What a model is: dimensions and options, independent of the file it came from.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/vision.h"

namespace crumb::models {

inline constexpr int64_t kMaxHeadDim = 1024;

enum class Activation : uint8_t { kSilu, kGeluTanh };

// What a block does beyond Llama's; the defaults are Llama's.
struct BlockOptions {
  bool qk_norm = false;     // RMS norm of every query and key head before RoPE
  bool post_norms = false;  // RMS norms of what attention and MLP add
  Activation activation = Activation::kSilu;
  float embedding_scale = 1;
  float attention_scale = 0;  // of scores; 0: 1 / sqrt(Dh)
  // Layers with a window see the last `window` positions. Every `window_every`-th layer sees all;
  // 0: none does.
  int64_t window = 0, window_every = 0;
  float rope_theta_local = 0;       // of layers with a window, unscaled; 0: rope_theta, scaled
  std::vector<float> rope_factors;  // [Dh / 2] divisors of the frequencies, empty: 1
  float rope_magnitude = 1;         // of cosines and sines

  bool operator==(const BlockOptions&) const = default;
};

// What is left of a layer of a model that lost parts (structural pruning).
struct LayerSize {
  int64_t source = 0;    // which layer of the whole model it was
  int64_t ffn = 0;       // of config.ffn
  int64_t kv_heads = 0;  // of config.kv_heads, each with its heads / kv_heads query heads

  bool operator==(const LayerSize&) const = default;
};

struct ModelConfig {
  std::string architecture;  // a name of models/architectures.h
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
  BlockOptions block;
  // Of a pruned model; empty (and whole_layers 0) if all layers are whole. F, H and Hk above are
  // those of the whole model then, which no layer exceeds; L counts the layers that are left.
  std::vector<LayerSize> pruned;  // [L], sources ascending
  int64_t whole_layers = 0;
  std::optional<VisionConfig> vision;  // of a model that sees
};

// Sizes of one layer, pruned or not.
LayerSize layer_size(const ModelConfig& config, int64_t layer);

// A model all of whose layers are like that one: F, H, Hk are the layer's own, `pruned` is empty.
ModelConfig layer_config(const ModelConfig& config, int64_t layer);

// Throws Error(kUsage) for a pruned model, which `what` ("training on a GPU") cannot hold.
void require_whole(const ModelConfig& config, const std::string& what);

// Throws Error(kUsage) for a model that sees, whose tower `what` ("training") would lose.
void require_blind(const ModelConfig& config, const std::string& what);

// Positions that a layer sees, itself included; 0: all.
int64_t window_of(const ModelConfig& config, int64_t layer);

// Throws Error(kUsage) if a block does more than Llama's or Qwen2's, which is all that `what`
// ("calibration") knows.
void require_plain_block(const ModelConfig& config, const std::string& what);

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

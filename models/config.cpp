#include "models/config.h"

#include <algorithm>
#include <cmath>

#include "kernels/layout.h"
#include "models/architectures.h"
#include "models/errors.h"
#include "models/json_text.h"
#include "models/text.h"
#include "models/vocab.h"

namespace crumb::models {
namespace {

using kernels::kMaxColumns;

constexpr std::string_view kRecord = "config";
constexpr std::size_t kMaxConfigBytes = 1 << 16;
constexpr std::size_t kMaxNameBytes = 1 << 12;
constexpr int64_t kMaxLayers = 1024;

// One integer field: its JSON name and lawful range. Parser, writer and check all walk this table.
struct IntField {
  const char* name;
  int64_t ModelConfig::*member;
  int64_t low, high;
};
constexpr IntField kIntFields[] = {
    {"layers", &ModelConfig::layers, 1, kMaxLayers},
    {"dim", &ModelConfig::dim, 1, kMaxColumns},
    {"ffn", &ModelConfig::ffn, 1, kMaxColumns},
    {"heads", &ModelConfig::heads, 1, 1024},
    {"kv_heads", &ModelConfig::kv_heads, 1, 1024},
    {"head_dim", &ModelConfig::head_dim, 2, kMaxHeadDim},
    {"vocab", &ModelConfig::vocab, 1, kMaxVocab},
    {"context", &ModelConfig::context, 1, 1 << 24},
};

constexpr double kMaxRopeFactor = 1e6;

void validate_block(const ModelConfig& config, const JsonPlace& place) {
  const BlockOptions& block = config.block;
  const auto range = [&](const char* field, double value, double low, double high) {
    if (!(value >= low && value <= high))
      json_fail(place, field, std::to_string(low) + ".." + std::to_string(high),
                std::to_string(value));
  };
  range("embedding_scale", block.embedding_scale, 1e-6, 1e6);
  range("attention_scale", block.attention_scale, 0, 1e3);
  range("window", static_cast<double>(block.window), 0, 1 << 24);
  range("window_every", static_cast<double>(block.window_every), 0, 1024);
  if (block.rope_theta_local != 0) range("rope_theta_local", block.rope_theta_local, 1, 1e12);
  range("rope_magnitude", block.rope_magnitude, 1e-3, 1e3);
  if (!block.rope_factors.empty() && std::ssize(block.rope_factors) != config.head_dim / 2)
    json_fail(place, "rope_factors", std::to_string(config.head_dim / 2) + " numbers",
              std::to_string(block.rope_factors.size()));
  for (const float factor : block.rope_factors)
    range("rope_factors", factor, 1 / kMaxRopeFactor, kMaxRopeFactor);
}

constexpr const char* kActivations[] = {"silu", "gelu_tanh"};  // in the order of Activation

nlohmann::ordered_json block_to_json(const BlockOptions& block) {
  nlohmann::ordered_json json;
  json["qk_norm"] = block.qk_norm;
  json["post_norms"] = block.post_norms;
  json["activation"] = kActivations[static_cast<std::size_t>(block.activation)];
  json["embedding_scale"] = static_cast<double>(block.embedding_scale);
  json["attention_scale"] = static_cast<double>(block.attention_scale);
  json["window"] = block.window;
  json["window_every"] = block.window_every;
  json["rope_theta_local"] = static_cast<double>(block.rope_theta_local);
  json["rope_magnitude"] = static_cast<double>(block.rope_magnitude);
  json["rope_factors"] = nlohmann::ordered_json::array();
  for (const float factor : block.rope_factors)
    json["rope_factors"].push_back(static_cast<double>(factor));
  return json;
}

BlockOptions block_from_json(const nlohmann::json& json, const std::string& file) {
  const JsonPlace place{file, "config.block"};
  if (!json.is_object()) json_fail(place, "value", "an object", json.type_name());
  json_only(json,
            {"qk_norm", "post_norms", "activation", "embedding_scale", "attention_scale", "window",
             "window_every", "rope_theta_local", "rope_magnitude", "rope_factors"},
            place);
  BlockOptions block;
  block.qk_norm = json_bool(json, "qk_norm", place);
  block.post_norms = json_bool(json, "post_norms", place);
  const std::string activation = json_string(json, "activation", place);
  const auto known = std::find(std::begin(kActivations), std::end(kActivations), activation);
  if (known == std::end(kActivations))
    json_fail(place, "activation", "silu or gelu_tanh", printable(activation));
  block.activation = static_cast<Activation>(known - std::begin(kActivations));
  block.embedding_scale = json_float(json, "embedding_scale", place);
  block.attention_scale = json_float(json, "attention_scale", place);
  block.window = json_int(json, "window", 0, 1 << 24, place);
  block.window_every = json_int(json, "window_every", 0, 1024, place);
  block.rope_theta_local = json_float(json, "rope_theta_local", place);
  block.rope_magnitude = json_float(json, "rope_magnitude", place);
  const auto factors = json.find("rope_factors");
  if (factors == json.end() || !factors->is_array() || factors->size() > kMaxHeadDim / 2)
    json_fail(place, "rope_factors", "an array of numbers", "another value");
  for (const auto& factor : *factors) {
    if (!factor.is_number()) json_fail(place, "rope_factors", "numbers", factor.type_name());
    block.rope_factors.push_back(factor.get<float>());
  }
  return block;
}

// {"layers": of the whole model, "kept": [[source, ffn, kv_heads], ...]}.
nlohmann::ordered_json pruned_to_json(const ModelConfig& config) {
  auto kept = nlohmann::ordered_json::array();
  for (const LayerSize& size : config.pruned)
    kept.push_back({size.source, size.ffn, size.kv_heads});
  return {{"layers", config.whole_layers}, {"kept", std::move(kept)}};
}

void pruned_from_json(const nlohmann::json& json, const std::string& file, ModelConfig* config) {
  const JsonPlace place{file, "config.pruned"};
  if (!json.is_object()) json_fail(place, "value", "an object", json.type_name());
  json_only(json, {"layers", "kept"}, place);
  config->whole_layers = json_int(json, "layers", 1, kMaxLayers, place);
  const auto kept = json.find("kept");
  if (kept == json.end() || !kept->is_array() || std::ssize(*kept) != config->layers)
    json_fail(place, "kept", std::to_string(config->layers) + " layers", "another value");
  for (const auto& layer : *kept) {
    const bool numbers = layer.is_array() && layer.size() == 3 &&
                         std::all_of(layer.begin(), layer.end(), [](const nlohmann::json& n) {
                           return n.is_number_integer() && n >= 0 && n <= kMaxColumns;
                         });
    if (!numbers) json_fail(place, "kept", "triples of source, ffn and kv_heads", "another value");
    config->pruned.push_back({layer[0], layer[1], layer[2]});
  }
}

void validate_pruned(const ModelConfig& config, const std::string& file) {
  const JsonPlace place{file, "config.pruned"};
  if (config.pruned.empty()) {
    if (config.whole_layers != 0) json_fail(place, "kept", "layers", "none");
    return;
  }
  if (std::ssize(config.pruned) != config.layers)
    json_fail(place, "kept", std::to_string(config.layers) + " layers",
              std::to_string(config.pruned.size()));
  int64_t next = 0;  // least source that may come
  const auto range = [&](const char* field, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
      json_fail(place, field, std::to_string(low) + ".." + std::to_string(high),
                std::to_string(value));
  };
  range("layers", config.whole_layers, config.layers, kMaxLayers);
  for (const LayerSize& size : config.pruned) {
    range("source", size.source, next, config.whole_layers - 1);
    range("ffn", size.ffn, 1, config.ffn);
    range("kv_heads", size.kv_heads, 1, config.kv_heads);
    next = size.source + 1;
  }
}

}  // namespace

void validate(const ModelConfig& config, const std::string& file) {
  const JsonPlace place{file, kRecord};
  if (find_architecture(config.architecture) == nullptr)
    json_fail(place, "architecture", "one of " + architecture_names(),
              printable(config.architecture));
  if (config.name.size() > kMaxNameBytes || !valid_utf8(config.name))
    json_fail(place, "name", "UTF-8 text of at most 4096 bytes", printable(config.name));
  for (const IntField& field : kIntFields) {
    const int64_t value = config.*field.member;
    if (value < field.low || value > field.high)
      json_fail(place, field.name, std::to_string(field.low) + ".." + std::to_string(field.high),
                std::to_string(value));
  }
  if (config.heads % config.kv_heads != 0)
    json_fail(place, "kv_heads", "a divisor of heads = " + std::to_string(config.heads),
              std::to_string(config.kv_heads));
  if (config.head_dim % 2 != 0)
    json_fail(place, "head_dim", "an even number", std::to_string(config.head_dim));
  if (config.heads * config.head_dim > kMaxColumns)
    json_fail(place, "heads * head_dim", "at most " + std::to_string(kMaxColumns),
              std::to_string(config.heads * config.head_dim));
  if (!(config.rope_theta >= 1.0f && config.rope_theta <= 1e12f))
    json_fail(place, "rope_theta", "1..1e12", std::to_string(config.rope_theta));
  if (!(config.norm_eps > 0.0f && config.norm_eps <= 0.1f))
    json_fail(place, "norm_eps", "above 0, at most 0.1", std::to_string(config.norm_eps));
  validate_block(config, place);
  validate_pruned(config, file);
  if (config.vision) validate(*config.vision, file);
}

LayerSize layer_size(const ModelConfig& config, int64_t layer) {
  if (config.pruned.empty()) return {layer, config.ffn, config.kv_heads};
  return config.pruned[static_cast<std::size_t>(layer)];
}

ModelConfig layer_config(const ModelConfig& config, int64_t layer) {
  if (config.pruned.empty()) return config;
  const LayerSize size = layer_size(config, layer);
  ModelConfig own = config;
  own.pruned.clear();
  own.whole_layers = 0;
  own.ffn = size.ffn;
  own.heads = config.heads / config.kv_heads * size.kv_heads;
  own.kv_heads = size.kv_heads;
  return own;
}

void require_whole(const ModelConfig& config, const std::string& what) {
  if (config.pruned.empty()) return;
  throw Error(ExitCode::kUsage,
              what + " cannot hold a pruned model (expected layers of one size, found " +
                  std::to_string(config.layers) + " of " + std::to_string(config.whole_layers) +
                  " layers with sizes of their own)");
}

void require_blind(const ModelConfig& config, const std::string& what) {
  if (!config.vision) return;
  throw Error(ExitCode::kUsage,
              what + " cannot hold a vision tower (expected a text model, found " +
                  config.architecture + " with " + config.vision->architecture + ")");
}

int64_t window_of(const ModelConfig& config, int64_t layer) {
  const BlockOptions& block = config.block;
  const int64_t source = layer_size(config, layer).source;
  const bool global = block.window_every > 0 && (source + 1) % block.window_every == 0;
  return global ? 0 : block.window;
}

void require_plain_block(const ModelConfig& config, const std::string& what) {
  if (config.block == BlockOptions{}) return;
  throw Error(ExitCode::kUsage,
              what +
                  " does not know the blocks of this model yet (architecture: expected plain "
                  "llama or qwen2, found " +
                  config.architecture + ")",
              "use a preset that reads no data: --preset int8 or int4-fast");
}

std::string to_json(const ModelConfig& config) {
  nlohmann::ordered_json json;
  json["architecture"] = config.architecture;
  json["name"] = config.name;
  for (const IntField& field : kIntFields) json[field.name] = config.*field.member;
  // As double: its shortest text gives the same float back.
  json["rope_theta"] = static_cast<double>(config.rope_theta);
  json["norm_eps"] = static_cast<double>(config.norm_eps);
  json["tied_head"] = config.tied_head;
  json["qkv_bias"] = config.qkv_bias;
  if (config.block != BlockOptions{}) json["block"] = block_to_json(config.block);
  if (!config.pruned.empty()) json["pruned"] = pruned_to_json(config);
  if (config.vision) json["vision"] = nlohmann::ordered_json::parse(to_json(*config.vision));
  return json_dump(json);
}

ModelConfig config_from_json(const std::string& text, const std::string& file) {
  const JsonPlace place{file, kRecord};
  const nlohmann::json json = parse_json_object(text, place, kMaxConfigBytes);
  std::vector<std::string_view> known = {"architecture", "name",      "rope_theta",
                                         "norm_eps",     "tied_head", "qkv_bias",
                                         "block",        "pruned",    "vision"};
  ModelConfig config;
  config.architecture = json_string(json, "architecture", place);
  config.name = json_string(json, "name", place);
  for (const IntField& field : kIntFields) {
    known.push_back(field.name);
    config.*field.member = json_int(json, field.name, field.low, field.high, place);
  }
  config.rope_theta = json_float(json, "rope_theta", place);
  config.norm_eps = json_float(json, "norm_eps", place);
  config.tied_head = json_bool(json, "tied_head", place);
  config.qkv_bias = json_bool(json, "qkv_bias", place);
  json_only(json, known, place);
  if (const auto block = json.find("block"); block != json.end())
    config.block = block_from_json(*block, file);
  if (const auto pruned = json.find("pruned"); pruned != json.end())
    pruned_from_json(*pruned, file, &config);
  if (const auto vision = json.find("vision"); vision != json.end())
    config.vision = vision_from_json(json_dump(*vision), file);
  validate(config, file);
  return config;
}

}  // namespace crumb::models

#include "models/config.h"

#include <cmath>

#include "kernels/layout.h"
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

// One integer field: its JSON name and lawful range. Parser, writer and check all walk this table.
struct IntField {
  const char* name;
  int64_t ModelConfig::*member;
  int64_t low, high;
};
constexpr IntField kIntFields[] = {
    {"layers", &ModelConfig::layers, 1, 1024},
    {"dim", &ModelConfig::dim, 1, kMaxColumns},
    {"ffn", &ModelConfig::ffn, 1, kMaxColumns},
    {"heads", &ModelConfig::heads, 1, 1024},
    {"kv_heads", &ModelConfig::kv_heads, 1, 1024},
    {"head_dim", &ModelConfig::head_dim, 2, kMaxHeadDim},
    {"vocab", &ModelConfig::vocab, 1, kMaxVocab},
    {"context", &ModelConfig::context, 1, 1 << 24},
};

}  // namespace

void validate(const ModelConfig& config, const std::string& file) {
  const JsonPlace place{file, kRecord};
  if (config.architecture != "llama" && config.architecture != "qwen2")
    json_fail(place, "architecture", "llama or qwen2", printable(config.architecture));
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
  return json_dump(json);
}

ModelConfig config_from_json(const std::string& text, const std::string& file) {
  const JsonPlace place{file, kRecord};
  const nlohmann::json json = parse_json_object(text, place, kMaxConfigBytes);
  std::vector<std::string_view> known = {"architecture", "name",      "rope_theta",
                                         "norm_eps",     "tied_head", "qkv_bias"};
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
  validate(config, file);
  return config;
}

}  // namespace crumb::models

#include "models/vision.h"

#include <algorithm>
#include <string_view>

#include "kernels/layout.h"
#include "models/config.h"
#include "models/json_text.h"
#include "models/text.h"
#include "models/vision_towers.h"

namespace crumb::models {
namespace {

using kernels::kMaxColumns;

constexpr std::string_view kRecord = "config.vision";
constexpr std::size_t kMaxRecordBytes = 1 << 16, kMaxTextBytes = 1 << 10;
// An image costs at most this much: attention is quadratic in the patches.
constexpr int64_t kMaxImage = 2048, kMaxPatches = 4096, kMaxPatch = 64;

struct IntField {
  const char* name;
  int64_t VisionConfig::*member;
  int64_t low, high;
};
constexpr IntField kIntFields[] = {
    {"layers", &VisionConfig::layers, 1, 256},
    {"dim", &VisionConfig::dim, 1, kMaxColumns},
    {"ffn", &VisionConfig::ffn, 1, kMaxColumns},
    {"heads", &VisionConfig::heads, 1, 256},
    {"patch", &VisionConfig::patch, 1, kMaxPatch},
    {"image", &VisionConfig::image, 1, kMaxImage},
    {"resize", &VisionConfig::resize, 1, 2 * kMaxImage},
    {"unshuffle", &VisionConfig::unshuffle, 1, 16},
    {"hidden", &VisionConfig::hidden, 0, kMaxColumns},
};
struct FlagField {
  const char* name;
  bool VisionConfig::*member;
};
constexpr FlagField kFlagFields[] = {
    {"class_token", &VisionConfig::class_token}, {"patch_bias", &VisionConfig::patch_bias},
    {"pre_norm", &VisionConfig::pre_norm},       {"final_norm", &VisionConfig::final_norm},
    {"layer_scale", &VisionConfig::layer_scale}, {"projector_bias", &VisionConfig::projector_bias},
};
struct TextField {
  const char* name;
  std::string VisionConfig::*member;
};
constexpr TextField kTextFields[] = {{"before", &VisionConfig::before},
                                     {"after", &VisionConfig::after},
                                     {"image_text", &VisionConfig::image_text}};

// In the order of their enumerations.
constexpr std::string_view kActivations[] = {"gelu", "quick_gelu", "gelu_tanh"};
constexpr std::string_view kFits[] = {"pad", "crop", "stretch"};
constexpr std::string_view kFilters[] = {"bilinear", "bicubic", "lanczos"};

template <class Value, std::size_t n>
Value value_of(const nlohmann::json& json, const char* field, const std::string_view (&names)[n],
               const JsonPlace& place) {
  const std::string text = json_string(json, field, place);
  const auto found = std::find(std::begin(names), std::end(names), text);
  if (found == std::end(names)) {
    std::string known;
    for (const auto name : names) known += (known.empty() ? "" : ", ") + std::string(name);
    json_fail(place, field, known, printable(text));
  }
  return static_cast<Value>(found - std::begin(names));
}
template <class Value, std::size_t n>
std::string_view name_of(Value value, const std::string_view (&names)[n]) {
  return names[static_cast<std::size_t>(value)];
}

nlohmann::ordered_json colours_to_json(const std::array<float, 3>& values) {
  auto json = nlohmann::ordered_json::array();
  for (const float value : values) json.push_back(static_cast<double>(value));
  return json;
}

std::array<float, 3> colours_from_json(const nlohmann::json& json, const char* field,
                                       const JsonPlace& place) {
  const auto found = json.find(field);
  const bool numbers = found != json.end() && found->is_array() && found->size() == 3 &&
                       std::all_of(found->begin(), found->end(),
                                   [](const nlohmann::json& value) { return value.is_number(); });
  if (!numbers) json_fail(place, field, "three numbers", "another value");
  return {(*found)[0].get<float>(), (*found)[1].get<float>(), (*found)[2].get<float>()};
}

void validate_sizes(const VisionConfig& config, const JsonPlace& place) {
  const auto fail = [&](const char* field, const std::string& expected, int64_t found) {
    json_fail(place, field, expected, std::to_string(found));
  };
  if (config.dim % config.heads != 0)
    fail("heads", "a divisor of dim = " + std::to_string(config.dim), config.heads);
  if (config.dim / config.heads > kMaxHeadDim || config.dim / config.heads % 2 != 0)
    fail("dim / heads", "an even number up to " + std::to_string(kMaxHeadDim),
         config.dim / config.heads);
  if (config.patch > config.image)
    fail("patch", "at most image = " + std::to_string(config.image), config.patch);
  const int64_t side = patches_a_side(config);
  if (side * side > kMaxPatches)
    fail("patches", "at most " + std::to_string(kMaxPatches), side * side);
  if (side % config.unshuffle != 0)
    fail("unshuffle", "a divisor of " + std::to_string(side) + " patches a side", config.unshuffle);
  if (projector_columns(config) > kMaxColumns)
    fail("dim * unshuffle^2", "at most " + std::to_string(kMaxColumns), projector_columns(config));
  const bool crops = config.fit == ImageFit::kCrop;
  if (crops ? config.resize < config.image : config.resize != config.image)
    fail("resize", (crops ? "at least image = " : "image = ") + std::to_string(config.image),
         config.resize);
}

}  // namespace

int64_t patches_a_side(const VisionConfig& config) { return config.image / config.patch; }
int64_t vision_tokens(const VisionConfig& config) {
  const int64_t side = patches_a_side(config);
  return side * side + (config.class_token ? 1 : 0);
}
int64_t image_tokens(const VisionConfig& config) {
  const int64_t side = patches_a_side(config) / config.unshuffle;
  return side * side;
}
int64_t projector_columns(const VisionConfig& config) {
  return config.dim * config.unshuffle * config.unshuffle;
}

void validate(const VisionConfig& config, const std::string& file) {
  const JsonPlace place{file, kRecord};
  if (find_tower(config.architecture) == nullptr)
    json_fail(place, "architecture", "one of " + tower_names(), printable(config.architecture));
  for (const IntField& field : kIntFields) {
    const int64_t value = config.*field.member;
    if (value < field.low || value > field.high)
      json_fail(place, field.name, std::to_string(field.low) + ".." + std::to_string(field.high),
                std::to_string(value));
  }
  validate_sizes(config, place);
  if (!(config.norm_eps > 0.0f && config.norm_eps <= 0.1f))
    json_fail(place, "norm_eps", "above 0, at most 0.1", std::to_string(config.norm_eps));
  for (std::size_t i = 0; i < 3; ++i) {
    if (!(config.mean[i] >= -10 && config.mean[i] <= 10))
      json_fail(place, "mean", "-10..10", std::to_string(config.mean[i]));
    if (!(config.std[i] >= 1e-3f && config.std[i] <= 1e3f))
      json_fail(place, "std", "0.001..1000", std::to_string(config.std[i]));
  }
  for (const TextField& field : kTextFields) {
    const std::string& text = config.*field.member;
    if (text.size() > kMaxTextBytes || !valid_utf8(text))
      json_fail(place, field.name, "UTF-8 text of at most 1024 bytes", printable(text));
  }
}

std::string to_json(const VisionConfig& config) {
  nlohmann::ordered_json json;
  json["architecture"] = config.architecture;
  for (const IntField& field : kIntFields) json[field.name] = config.*field.member;
  for (const FlagField& field : kFlagFields) json[field.name] = config.*field.member;
  json["activation"] = name_of(config.activation, kActivations);
  json["projector_activation"] = name_of(config.projector_activation, kActivations);
  json["norm_eps"] = static_cast<double>(config.norm_eps);
  json["fit"] = name_of(config.fit, kFits);
  json["filter"] = name_of(config.filter, kFilters);
  json["mean"] = colours_to_json(config.mean);
  json["std"] = colours_to_json(config.std);
  for (const TextField& field : kTextFields) json[field.name] = config.*field.member;
  return json_dump(json);
}

VisionConfig vision_from_json(const std::string& text, const std::string& file) {
  const JsonPlace place{file, kRecord};
  const nlohmann::json json = parse_json_object(text, place, kMaxRecordBytes);
  std::vector<std::string_view> known = {"architecture", "activation", "projector_activation",
                                         "norm_eps",     "fit",        "filter",
                                         "mean",         "std"};
  VisionConfig config;
  config.architecture = json_string(json, "architecture", place);
  for (const IntField& field : kIntFields) {
    known.emplace_back(field.name);
    config.*field.member = json_int(json, field.name, field.low, field.high, place);
  }
  for (const FlagField& field : kFlagFields) {
    known.emplace_back(field.name);
    config.*field.member = json_bool(json, field.name, place);
  }
  for (const TextField& field : kTextFields) {
    known.emplace_back(field.name);
    config.*field.member = json_string(json, field.name, place);
  }
  config.activation = value_of<VisionActivation>(json, "activation", kActivations, place);
  config.projector_activation =
      value_of<VisionActivation>(json, "projector_activation", kActivations, place);
  config.norm_eps = json_float(json, "norm_eps", place);
  config.fit = value_of<ImageFit>(json, "fit", kFits, place);
  config.filter = value_of<ImageFilter>(json, "filter", kFilters, place);
  config.mean = colours_from_json(json, "mean", place);
  config.std = colours_from_json(json, "std", place);
  json_only(json, known, place);
  validate(config, file);
  return config;
}

}  // namespace crumb::models

#include "models/hugging_face_vision.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "models/architectures.h"
#include "models/errors.h"
#include "models/json_text.h"
#include "models/text.h"

namespace crumb::models {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::size_t kMaxBytes = 4 << 20;
constexpr int64_t kMost = 1 << 20;  // of any integer; validate() has the ranges

struct ActivationName {
  std::string_view theirs;
  VisionActivation ours;
};
constexpr ActivationName kActivations[] = {{"gelu", VisionActivation::kGeluErf},
                                           {"quick_gelu", VisionActivation::kQuickGelu},
                                           {"gelu_pytorch_tanh", VisionActivation::kGeluTanh}};

json read_object(const std::string& folder, const char* name) {
  const std::string path = (fs::path(folder) / name).string();
  if (!fs::exists(path))
    throw FormatError("missing file (" + folder + ": expected " + name + ", found no such file)");
  return parse_json_object(read_text(path, kMaxBytes), {path, name}, kMaxBytes);
}

bool present(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && !found->is_null();
}
int64_t integer(const json& object, const char* field, int64_t otherwise, const JsonPlace& place) {
  return present(object, field) ? json_int(object, field, 0, kMost, place) : otherwise;
}

VisionActivation activation(const json& object, const char* field, std::string_view otherwise,
                            const JsonPlace& place) {
  const std::string name =
      present(object, field) ? json_string(object, field, place) : std::string(otherwise);
  for (const ActivationName& known : kActivations)
    if (known.theirs == name) return known.ours;
  json_fail(place, field, "gelu, quick_gelu or gelu_pytorch_tanh", printable(name));
}

// DINOv2 names the ratio of its MLP, the others its width.
int64_t mlp_width(const json& config, int64_t dim, int64_t otherwise, const JsonPlace& place) {
  if (!present(config, "mlp_ratio")) return integer(config, "intermediate_size", otherwise, place);
  const float ratio = json_float(config, "mlp_ratio", place);
  if (!(ratio > 0 && ratio <= 64)) json_fail(place, "mlp_ratio", "0..64", std::to_string(ratio));
  return std::llround(static_cast<double>(dim) * static_cast<double>(ratio));
}

void refuse_unsupported(const json& config, const JsonPlace& place) {
  if (present(config, "use_swiglu_ffn") && config["use_swiglu_ffn"] != false)
    json_fail(place, "use_swiglu_ffn", "false (not supported)",
              json_dump(config["use_swiglu_ffn"]));
  for (const char* field : {"qkv_bias", "attention_bias"})
    if (present(config, field) && config[field] != true)
      json_fail(place, field, "true (not supported)", json_dump(config[field]));
  if (integer(config, "num_channels", 3, place) != 3)
    json_fail(place, "num_channels", "3", "another number");
}

VisionConfig tower_of(const json& config, const JsonPlace& place) {
  const std::string type = json_string(config, "model_type", place);
  const VisionTower* tower = find_tower(type);
  if (tower == nullptr) json_fail(place, "model_type", "one of " + tower_names(), printable(type));
  VisionConfig out;
  out.architecture = tower->name;
  out.class_token = tower->class_token;
  out.patch_bias = tower->patch_bias;
  out.pre_norm = tower->pre_norm;
  out.final_norm = tower->final_norm;
  out.layer_scale = tower->layer_scale;
  out.dim = integer(config, "hidden_size", tower->dim, place);
  out.layers = integer(config, "num_hidden_layers", tower->layers, place);
  out.heads = integer(config, "num_attention_heads", tower->heads, place);
  out.ffn = mlp_width(config, out.dim, tower->ffn, place);
  out.patch = integer(config, "patch_size", tower->patch, place);
  out.image = out.resize = integer(config, "image_size", tower->image, place);
  out.activation = activation(config, "hidden_act", tower->activation, place);
  out.norm_eps = present(config, "layer_norm_eps") ? json_float(config, "layer_norm_eps", place)
                                                   : tower->norm_eps;
  refuse_unsupported(config, place);
  return out;
}

// "size": 224, or an object of one of these names.
int64_t edge_of(const json& processor, const char* field, const JsonPlace& place) {
  const json& size = processor[field];
  if (size.is_number_integer()) return json_int(processor, field, 1, kMost, place);
  if (size.is_object())
    for (const char* name : {"shortest_edge", "longest_edge", "height"})
      if (present(size, name)) return json_int(size, name, 1, kMost, place);
  json_fail(place, field, "a number of pixels", "another value");
}

void read_colours(const json& processor, const char* field, std::array<float, 3>* out,
                  const JsonPlace& place) {
  if (!present(processor, field)) return;
  const json& values = processor[field];
  const bool numbers =
      values.is_array() && values.size() == 3 &&
      std::all_of(values.begin(), values.end(), [](const json& v) { return v.is_number(); });
  if (!numbers) json_fail(place, field, "three numbers", "another value");
  for (std::size_t i = 0; i < 3; ++i) (*out)[i] = values[i].get<float>();
}

void read_fit(const json& processor, VisionConfig& config, const JsonPlace& place) {
  const bool crops = present(processor, "do_center_crop") && processor["do_center_crop"] == true;
  // One whole image; the cut-outs that Idefics3 can add are left out.
  const bool splits = present(processor, "do_image_splitting");
  if (splits || !present(processor, "size")) {
    config.fit = ImageFit::kStretch;
  } else if (crops) {
    config.fit = ImageFit::kCrop;
    config.resize = edge_of(processor, "size", place);
    const int64_t edge =
        present(processor, "crop_size") ? edge_of(processor, "crop_size", place) : config.resize;
    if (edge != config.image)
      json_fail(place, "crop_size", "image_size = " + std::to_string(config.image),
                std::to_string(edge));
  } else {
    const bool longest =
        processor["size"].is_object() && present(processor["size"], "longest_edge");
    config.fit = longest ? ImageFit::kPad : ImageFit::kStretch;
    const int64_t edge = edge_of(processor, "size", place);
    if (edge != config.image)
      json_fail(place, "size", "image_size = " + std::to_string(config.image),
                std::to_string(edge));
  }
}

// What is done to an image before the tower sees it.
void read_processor(const std::string& folder, VisionConfig& config) {
  constexpr const char* kName = "preprocessor_config.json";
  const json processor = read_object(folder, kName);
  const JsonPlace place{folder, kName};
  read_fit(processor, config, place);
  switch (integer(processor, "resample", 3, place)) {
    case 1:
      config.filter = ImageFilter::kLanczos;
      break;
    case 2:
      config.filter = ImageFilter::kBilinear;
      break;
    case 3:
      config.filter = ImageFilter::kBicubic;
      break;
    default:
      json_fail(place, "resample", "1 (Lanczos), 2 (bilinear) or 3 (bicubic)",
                json_dump(processor["resample"]));
  }
  if (present(processor, "rescale_factor") &&
      std::fabs(json_float(processor, "rescale_factor", place) * 255 - 1) > 1e-4f)
    json_fail(place, "rescale_factor", "1/255", json_dump(processor["rescale_factor"]));
  read_colours(processor, "image_mean", &config.mean, place);
  read_colours(processor, "image_std", &config.std, place);
  if (present(processor, "do_normalize") && processor["do_normalize"] == false) {
    config.mean = {0, 0, 0};
    config.std = {1, 1, 1};
  }
}

// The decoder's config: what the folder's may leave out, its class by its kind.
std::string text_config(const json& root, const Composite& row, const JsonPlace& place) {
  const auto own = root.find("text_config");
  if (own == root.end() || !own->is_object())
    json_fail(place, "text_config", "an object", "another value");
  json text = json::parse(row.text_defaults);
  text.update(*own);
  if (present(*own, "model_type") && (*own)["model_type"].is_string())
    if (const auto* architecture = find_architecture((*own)["model_type"].get<std::string>()))
      text["architectures"] = {std::string(architecture->class_name)};
  for (const char* field : {"tie_word_embeddings", "eos_token_id"})
    if (!present(*own, field) && present(root, field)) text[field] = root[field];
  return json_dump(text);
}

// LLaVA reads the rows of one layer, from behind: -1 is the last.
void choose_layer(const json& root, VisionConfig& vision, const JsonPlace& place) {
  const int64_t layer = present(root, "vision_feature_layer")
                            ? json_int(root, "vision_feature_layer", -kMost, -1, place)
                            : -2;
  vision.layers += layer + 1;
  vision.final_norm = false;
  const std::string rule = present(root, "vision_feature_select_strategy")
                               ? json_string(root, "vision_feature_select_strategy", place)
                               : "default";
  if (rule != "default" && vision.class_token)
    json_fail(place, "vision_feature_select_strategy", "default (no class row)", printable(rule));
}

}  // namespace

VisionConfig read_tower_config(const std::string& folder) {
  VisionConfig config = tower_of(read_object(folder, "config.json"), {folder, "config.json"});
  read_processor(folder, config);
  validate(config, folder);
  return config;
}

std::optional<CompositeConfig> read_composite_config(const std::string& text,
                                                     const std::string& folder) {
  const JsonPlace place{folder, "config.json"};
  const json root = parse_json_object(text, place, kMaxBytes);
  const auto type = root.find("model_type");
  if (type == root.end() || !type->is_string() || !present(root, "vision_config")) return {};
  const Composite* row = find_composite(type->get<std::string>());
  if (row == nullptr) return {};
  const auto tower = root.find("vision_config");
  if (!tower->is_object()) json_fail(place, "vision_config", "an object", tower->type_name());
  CompositeConfig out;
  out.composite = row;
  json own = *tower;
  if (!present(own, "model_type")) own["model_type"] = std::string(row->tower);
  out.vision = tower_of(own, place);
  out.tower_layers = out.vision.layers;
  read_processor(folder, out.vision);
  out.vision.unshuffle = integer(root, "scale_factor", row->unshuffle, place);
  out.vision.projector_bias = row->projector_bias;
  if (!row->projector_2.empty())
    out.vision.projector_activation = activation(root, "projector_hidden_act", "gelu", place);
  out.vision.before = row->before;
  out.vision.after = row->after;
  out.vision.image_text = row->image_text;
  if (row->by_layer) choose_layer(root, out.vision, place);
  validate(out.vision, folder);
  out.text = text_config(root, *row, place);
  return out;
}

}  // namespace crumb::models

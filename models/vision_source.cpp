#include "models/vision_source.h"

#include <algorithm>
#include <cmath>

#include "models/errors.h"
#include "models/hugging_face_vision.h"
#include "models/import.h"
#include "models/json_text.h"
#include "models/text.h"

namespace crumb::models {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

// [1, 1, D] is [D], and a kernel [D, 3, p, p] the matrix [D, 3 p p].
bool same_shape(std::vector<int64_t> theirs, const std::vector<int64_t>& ours) {
  while (theirs.size() > ours.size() && theirs.front() == 1) theirs.erase(theirs.begin());
  while (ours.size() == 2 && theirs.size() > 2) {
    const int64_t last = theirs.back();
    theirs.pop_back();
    if (__builtin_mul_overflow(theirs.back(), last, &theirs.back())) return false;
  }
  return theirs == ours;
}

const StoredArray& find_array(const SafetensorsSet& weights, const std::string& name,
                              const std::vector<int64_t>& shape, const std::string& folder) {
  const auto found = weights.tensors().find(name);
  if (found == weights.tensors().end())
    throw FormatError("missing tensor (" + folder + ": expected " + printable(name) + " " +
                      shape_text(shape) + ", found nothing)");
  if (!same_shape(found->second.shape, shape))
    throw FormatError("invalid shape of tensor " + printable(name) + " (" + folder + ": expected " +
                      shape_text(shape) + ", found " + shape_text(found->second.shape) + ")");
  if (!is_float(found->second))
    throw FormatError("invalid type of tensor " + printable(name) + " (" + folder +
                      ": expected F32, F16 or BF16, found " +
                      std::string(found->second.dtype->name) + ")");
  return found->second;
}

// The folder's name of a tensor of ours.
std::string name_in_folder(const TensorInfo& info, const VisionPlaces& places) {
  constexpr std::string_view kFirst = "projector.linear_1", kSecond = "projector.linear_2";
  const std::string_view name = info.name;
  for (const auto& [ours, theirs] :
       {std::pair(kFirst, &places.projector[0]), std::pair(kSecond, &places.projector[1])})
    if (name.starts_with(ours))
      return *theirs + (name == ours ? ".weight" : std::string(name.substr(ours.size())));
  return places.tower_prefix + foreign_name(info, *places.tower);
}

// A projector of its own file.
struct Projector {
  MappedFile file;
  Safetensors container;
  std::map<std::string, StoredArray, std::less<>> arrays;
};

std::shared_ptr<Projector> open_projector(const std::string& path) {
  auto projector = std::make_shared<Projector>();
  projector->file = MappedFile(path);
  projector->container = parse_safetensors(projector->file.bytes(), path);
  for (const SafetensorsEntry& entry : projector->container.tensors)
    projector->arrays.emplace(entry.name, StoredArray{entry.dtype, entry.shape,
                                                      projector->container.data.subspan(
                                                          entry.begin, entry.end - entry.begin)});
  return projector;
}

const StoredArray* find(const Projector& projector, const std::string& name) {
  const auto found = projector.arrays.find(name);
  return found == projector.arrays.end() ? nullptr : &found->second;
}

// Unshuffle and hidden width by the shapes, the rest by the metadata.
void read_projector(const Projector& projector, int64_t decoder_dim, VisionConfig* config) {
  const std::string& path = projector.file.path();
  const StoredArray* first = find(projector, "projector.linear_1.weight");
  if (first == nullptr || first->shape.size() != 2 || first->shape[1] % config->dim != 0)
    throw FormatError("invalid projector (" + path +
                      ": expected 'projector.linear_1.weight' of a multiple of " +
                      std::to_string(config->dim) + " columns, found " +
                      (first == nullptr ? "nothing" : shape_text(first->shape)) + ")");
  config->unshuffle = std::llround(
      std::sqrt(static_cast<double>(first->shape[1]) / static_cast<double>(config->dim)));
  if (projector_columns(*config) != first->shape[1])
    throw FormatError("invalid projector (" + path + ": expected " + std::to_string(config->dim) +
                      " * u^2 columns, found " + std::to_string(first->shape[1]) + ")");
  config->hidden = find(projector, "projector.linear_2.weight") != nullptr ? first->shape[0] : 0;
  config->projector_bias = find(projector, "projector.linear_1.bias") != nullptr;
  const auto& metadata = projector.container.metadata;
  for (const auto& [key, member] :
       {std::pair("before", &VisionConfig::before), std::pair("after", &VisionConfig::after),
        std::pair("image_text", &VisionConfig::image_text)})
    if (const auto text = metadata.find(key); text != metadata.end())
      config->*member = text->second;
  if (const auto kind = metadata.find("activation"); kind != metadata.end()) {
    nlohmann::json json = nlohmann::json::parse(to_json(*config));
    json["projector_activation"] = kind->second;
    *config = vision_from_json(json_dump(json), path);
  }
  validate(*config, path);
  ModelConfig whole;
  whole.dim = decoder_dim;
  whole.vision = *config;
  std::size_t used = 0;
  for (const TensorInfo& info : vision_table(whole)) used += info.name.starts_with("projector.");
  if (projector.arrays.size() != used)
    throw FormatError("unexpected tensors (" + path + ": expected " + std::to_string(used) +
                      " of a projector, found " + std::to_string(projector.arrays.size()) + ")");
}

// What is behind a model that was given eyes.
struct Seeing {
  SourceModel text;
  SafetensorsSet tower;
  std::shared_ptr<Projector> projector;
  VisionArrays arrays;
  std::string folder;
};

void match_projector(const ModelConfig& config, Seeing* seeing) {
  const std::string& path = seeing->projector->file.path();
  for (const TensorInfo& info : vision_table(config)) {
    if (!info.name.starts_with("projector.")) continue;
    const std::string name = may_be_quantized(info.role) ? info.name + ".weight" : info.name;
    const StoredArray* array = find(*seeing->projector, name);
    if (array == nullptr || array->shape != info.shape || !is_float(*array))
      throw FormatError("invalid projector (" + path + ": expected " + printable(name) + " " +
                        shape_text(info.shape) + " in F32, F16 or BF16, found " +
                        (array == nullptr ? "nothing" : shape_text(array->shape)) + ")");
    seeing->arrays.arrays[info.name] = array;
  }
}

}  // namespace

VisionArrays match_vision(const SafetensorsSet& weights, const ModelConfig& config,
                          const VisionPlaces& places, const std::string& folder) {
  VisionArrays out;
  for (const TensorInfo& info : vision_table(config)) {
    const bool projector = info.name.starts_with("projector.");
    if (projector && places.projector[0].empty()) continue;
    const std::string name = name_in_folder(info, places);
    out.arrays[info.name] = &find_array(weights, name, info.shape, folder);
    out.used.insert(name);
  }
  return out;
}

void read_array(const StoredArray& array, std::string_view name, const std::string& folder,
                std::span<float> out) {
  if (array.data.size() != out.size() * static_cast<std::size_t>(array.dtype->bytes))
    throw Error(ExitCode::kInternal,
                "read of tensor " + std::string(name) + " into a span of another size");
  read_row(array, 0, out);
  require_finite(out, name, 0, folder);
}

void add_vision(const std::string& folder, const std::string& projector, SourceModel* model) {
  require_blind(model->config, "--vision");
  auto seeing = std::shared_ptr<Seeing>(
      new Seeing{*model, SafetensorsSet(folder), open_projector(projector), {}, folder});
  VisionConfig vision = read_tower_config(folder);
  read_projector(*seeing->projector, model->config.dim, &vision);
  model->config.vision = std::move(vision);
  const VisionTower& tower = *find_tower(model->config.vision->architecture);
  seeing->arrays = match_vision(seeing->tower, model->config, {&tower, "", {}}, folder);
  for (const auto& [name, array] : seeing->tower.tensors()) {
    const bool ignored =
        std::any_of(tower.ignored.begin(), tower.ignored.end(),
                    [&, &key = name](std::string_view prefix) { return key.starts_with(prefix); });
    if (!ignored && !seeing->arrays.used.contains(name))
      throw FormatError("unexpected tensor (" + folder + ": expected the tensors of " +
                        std::string(tower.name) + ", found " + printable(name) + ")");
  }
  match_projector(model->config, seeing.get());
  model->file_bytes += seeing->tower.file_bytes() + seeing->projector->file.bytes().size();
  model->hash += "+" + seeing->tower.hash() + "+" + content_hash(seeing->projector->file.bytes());
  model->read = [data = seeing.get()](std::string_view name, std::span<float> out) {
    const auto found = data->arrays.arrays.find(name);
    if (found == data->arrays.arrays.end()) return data->text.read(name, out);
    read_array(*found->second, name, data->folder, out);
  };
  model->packed = nullptr;
  model->storage = seeing;
}

}  // namespace crumb::models

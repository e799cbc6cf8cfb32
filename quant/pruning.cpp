#include "quant/pruning.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "models/content_hash.h"
#include "models/errors.h"
#include "models/json.h"
#include "models/tensors.h"

namespace crumb::quant {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// What an axis of a tensor counts.
enum class Axis : uint8_t { kOther, kUnits, kQueries, kKeys };

// The tensors of a block that pruning makes smaller, by the end of their names.
struct PrunedTensor {
  std::string_view suffix;
  Axis rows, columns;
};
constexpr PrunedTensor kTensors[] = {
    {"self_attn.q_proj", Axis::kQueries, Axis::kOther},
    {"self_attn.q_proj.bias", Axis::kQueries, Axis::kOther},
    {"self_attn.k_proj", Axis::kKeys, Axis::kOther},
    {"self_attn.k_proj.bias", Axis::kKeys, Axis::kOther},
    {"self_attn.v_proj", Axis::kKeys, Axis::kOther},
    {"self_attn.v_proj.bias", Axis::kKeys, Axis::kOther},
    {"self_attn.o_proj", Axis::kOther, Axis::kQueries},
    {"mlp.gate_proj", Axis::kUnits, Axis::kOther},
    {"mlp.up_proj", Axis::kUnits, Axis::kOther},
    {"mlp.down_proj", Axis::kOther, Axis::kUnits},
};

const PrunedTensor* find_tensor(std::string_view suffix) {
  const auto* found = std::ranges::find(kTensors, suffix, &PrunedTensor::suffix);
  return found == std::end(kTensors) ? nullptr : found;
}

// The rows or columns that stay: all of `size`, units, or the rows of heads.
std::vector<int64_t> kept_of(Axis axis, int64_t size, const models::ModelConfig& config,
                             const KeptLayer& kept) {
  std::vector<int64_t> places;
  if (axis == Axis::kOther) {
    places.resize(size_of(size));
    std::iota(places.begin(), places.end(), int64_t{0});
    return places;
  }
  if (axis == Axis::kUnits) return kept.units;
  const int64_t rows =
      config.head_dim * (axis == Axis::kQueries ? config.heads / config.kv_heads : 1);
  for (const int64_t head : kept.heads)
    for (int64_t r = 0; r < rows; ++r) places.push_back(head * rows + r);
  return places;
}

// w [N, K] (K 1 for a vector) -> the rows and columns that stay.
std::vector<float> gather(const PrunedTensor& tensor, std::span<const float> w, int64_t K,
                          const models::ModelConfig& config, const KeptLayer& kept) {
  const auto rows = kept_of(tensor.rows, std::ssize(w) / K, config, kept);
  const auto columns = kept_of(tensor.columns, K, config, kept);
  std::vector<float> out;
  out.reserve(rows.size() * columns.size());
  for (const int64_t n : rows)
    for (const int64_t k : columns) out.push_back(w[size_of(n * K + k)]);
  return out;
}

[[noreturn]] void refuse(const std::string& what, const std::string& expected,
                         const std::string& found) {
  throw Error(ExitCode::kUsage,
              "cannot prune (" + what + ": expected " + expected + ", found " + found + ")");
}

void require_places(const std::string& what, std::span<const int64_t> places, int64_t size) {
  if (places.empty()) refuse(what, "at least one", "none");
  int64_t least = 0;
  for (const int64_t place : places) {
    if (place < least || place >= size)
      refuse(what, "ascending numbers below " + std::to_string(size), std::to_string(place));
    least = place + 1;
  }
}

// Digits of the places that stay, "" for all of `size`.
std::string bits_of(std::span<const int64_t> places, int64_t size) {
  if (std::ssize(places) == size) return "";
  std::vector<int> digits(size_of((size + 3) / 4));
  for (const int64_t place : places) digits[size_of(place / 4)] |= 1 << (place % 4);
  std::string text;
  for (const int digit : digits) text += "0123456789abcdef"[digit];
  return text;
}

[[noreturn]] void fail(const std::string& file, const std::string& what) {
  throw FormatError("invalid pruning (" + file + ": expected " + what + ")");
}

std::vector<int64_t> places_of(const nlohmann::json& layer, const char* name, int64_t size,
                               const std::string& file) {
  std::vector<int64_t> places;
  const auto found = layer.find(name);
  if (found == layer.end()) {
    places.resize(size_of(size));
    std::iota(places.begin(), places.end(), int64_t{0});
    return places;
  }
  const auto text = found->is_string() ? found->get<std::string>() : std::string();
  if (std::ssize(text) != (size + 3) / 4) fail(file, std::string(name) + " in hexadecimal digits");
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = std::string_view("0123456789abcdef").find(text[i]);
    if (digit == std::string_view::npos) fail(file, std::string(name) + " in hexadecimal digits");
    for (std::size_t bit = 0; bit < 4; ++bit)
      if ((digit >> bit & 1) != 0) places.push_back(static_cast<int64_t>(4 * i + bit));
  }
  if (places.empty() || places.back() >= size)
    fail(file, std::string(name) + " below " + std::to_string(size));
  return places;
}

int64_t number(const nlohmann::json& json, const char* name, int64_t high,
               const std::string& file) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_number_integer() || *found < 0 || *found > high)
    fail(file, std::string(name) + ", a number up to " + std::to_string(high));
  return found->get<int64_t>();
}

// The layer and the rest of a name of the pruned model; -1 outside the blocks.
std::pair<int64_t, std::string_view> parts_of(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return {-1, name};
  name.remove_prefix(kPrefix.size());
  const auto dot = name.find('.');
  if (dot == 0 || dot == std::string_view::npos || dot > 4) return {-1, name};
  int64_t layer = 0;
  for (const char c : name.substr(0, dot)) {
    if (c < '0' || c > '9') return {-1, name};
    layer = 10 * layer + (c - '0');
  }
  return {layer, name.substr(dot + 1)};
}

void read_pruned(const models::SourceModel& source, const Pruning& pruning, std::string_view name,
                 std::span<float> out) {
  const auto [layer, suffix] = parts_of(name);
  if (layer < 0) return source.read(name, out);
  if (layer >= std::ssize(pruning.kept))
    throw FormatError("unknown tensor (expected a tensor of the model, found " + std::string(name) +
                      ")");
  const KeptLayer& kept = pruning.kept[size_of(layer)];
  const std::string whole = models::layer_tensor(kept.source, std::string(suffix));
  const PrunedTensor* tensor = find_tensor(suffix);
  if (tensor == nullptr) return source.read(whole, out);
  for (const models::TensorInfo& info : models::tensor_table(source.config)) {
    if (info.name != whole) continue;
    std::vector<float> all(size_of(models::weights_of(info)));
    source.read(whole, all);
    const auto rest =
        gather(*tensor, all, info.shape.size() == 2 ? info.shape[1] : 1, source.config, kept);
    if (rest.size() != out.size())
      throw Error(ExitCode::kInternal,
                  "read of tensor " + std::string(name) + " into a span of another size");
    std::ranges::copy(rest, out.begin());
  }
}

}  // namespace

Pruning keep_all(const models::ModelConfig& config) {
  Pruning all{config.layers, config.ffn, config.kv_heads, {}};
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    KeptLayer& kept = all.kept.emplace_back();
    kept.source = layer;
    kept.units = kept_of(Axis::kOther, config.ffn, config, kept);
    kept.heads = kept_of(Axis::kOther, config.kv_heads, config, kept);
  }
  return all;
}

models::ModelConfig pruned_config(const models::ModelConfig& config, const Pruning& pruning) {
  models::require_whole(config, "pruning");
  models::require_blind(config, "pruning");
  if (pruning.layers != config.layers || pruning.ffn != config.ffn ||
      pruning.kv_heads != config.kv_heads)
    refuse("sizes of the whole model",
           std::to_string(config.layers) + " layers of " + std::to_string(config.ffn) + " and " +
               std::to_string(config.kv_heads),
           std::to_string(pruning.layers) + " of " + std::to_string(pruning.ffn) + " and " +
               std::to_string(pruning.kv_heads));
  models::ModelConfig rest = config;
  std::vector<int64_t> layers;
  for (const KeptLayer& kept : pruning.kept) {
    layers.push_back(kept.source);
    const std::string where = "layer " + std::to_string(kept.source);
    require_places(where + ", FFN units", kept.units, config.ffn);
    require_places(where + ", KV heads", kept.heads, config.kv_heads);
    rest.pruned.push_back({kept.source, std::ssize(kept.units), std::ssize(kept.heads)});
  }
  require_places("layers", layers, config.layers);
  rest.whole_layers = config.layers;
  rest.layers = std::ssize(pruning.kept);
  return pruning == keep_all(config) ? config : rest;
}

models::SourceModel prune(const models::SourceModel& source, const Pruning& pruning) {
  const auto whole = std::make_shared<const models::SourceModel>(source);
  models::SourceModel rest = source;
  rest.config = pruned_config(source.config, pruning);
  const std::string identity = source.hash + pruning_to_json(pruning);
  rest.hash =
      models::content_hash({reinterpret_cast<const uint8_t*>(identity.data()), identity.size()});
  rest.read = [whole, pruning](std::string_view name, std::span<float> out) {
    read_pruned(*whole, pruning, name, out);
  };
  rest.packed = {};
  rest.storage = whole;
  return rest;
}

train::BlockWeights prune_block(const models::ModelConfig& config, const train::BlockWeights& block,
                                const KeptLayer& kept) {
  train::BlockWeights rest;
  for (const train::BlockTensor& t : train::block_tensors()) {
    const std::vector<float>& w = block.*t.member;
    const PrunedTensor* tensor = find_tensor(t.suffix);
    if (w.empty() || tensor == nullptr) {
      rest.*t.member = w;
      continue;
    }
    const int64_t K = t.suffix.ends_with(".bias")         ? 1
                      : tensor->columns == Axis::kQueries ? config.heads * config.head_dim
                      : tensor->columns == Axis::kUnits   ? config.ffn
                                                          : config.dim;
    rest.*t.member = gather(*tensor, w, K, config, kept);
  }
  return rest;
}

std::string pruning_to_json(const Pruning& pruning) {
  nlohmann::ordered_json json = {
      {"layers", pruning.layers}, {"ffn", pruning.ffn}, {"kv_heads", pruning.kv_heads}};
  json["kept"] = nlohmann::ordered_json::array();
  for (const KeptLayer& kept : pruning.kept) {
    auto& layer = json["kept"].emplace_back();
    layer["source"] = kept.source;
    const std::string units = bits_of(kept.units, pruning.ffn);
    const std::string heads = bits_of(kept.heads, pruning.kv_heads);
    if (!units.empty()) layer["units"] = units;
    if (!heads.empty()) layer["heads"] = heads;
  }
  return json.dump();
}

Pruning pruning_from_json(std::string_view text, const std::string& file) {
  constexpr int64_t kMost = 1 << 20;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) fail(file, "an object");
  const int64_t layers = number(json, "layers", 1024, file);
  const int64_t ffn = number(json, "ffn", kMost, file);
  const int64_t heads = number(json, "kv_heads", 1024, file);
  const auto kept = json.find("kept");
  if (kept == json.end() || !kept->is_array() || std::ssize(*kept) > layers)
    fail(file, "kept, a list of layers");
  Pruning pruning{layers, ffn, heads, {}};
  for (const auto& layer : *kept) {
    if (!layer.is_object()) fail(file, "kept, a list of layers");
    pruning.kept.push_back({number(layer, "source", layers - 1, file),
                            places_of(layer, "units", ffn, file),
                            places_of(layer, "heads", heads, file)});
  }
  return pruning;
}

}  // namespace crumb::quant

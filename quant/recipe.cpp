#include "quant/recipe.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "models/errors.h"
#include "models/json.h"
#include "quant/calibration_cache.h"
#include "quant/version.h"

namespace crumb::quant {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "crumb.recipe/2";

Json stage_json(const std::string& tensors, const Method& method) {
  if (method.bits == 32) return {{"stage", "float"}, {"tensors", tensors}};
  Json json = {
      {"stage", "round"},
      {"tensors", tensors},
      {"rounding", name_of(kRoundings, method.rounding)},
      {"bits", method.bits},
      {"group", method.group},
      {"grid", name_of(kGrids, method.grid)},
      {"rule", name_of(kScaleRules, method.rule)},
      {"rotation", {{"hadamard", method.rotation.hadamard}, {"seed", method.rotation.seed}}}};
  if (method.rounding == Rounding::kLdlq) {
    json["order"] = name_of(kColumnOrders, method.order);
    json["scales"] = name_of(kGroupScales, method.scales);
    json["greedy_passes"] = method.greedy_passes;
    if (method.trials > 0) json["trials"] = method.trials;
    if (method.refits > 0) json["refits"] = method.refits;
    json["damping"] = method.damping;
  }
  return json;
}

Json equalise_json(const EqualiseOptions& options) {
  Json json = {{"stage", "equalise"}, {"method", name_of(kEqualiseMethods, options.method)}};
  if (options.method == Equalise::kSinkhorn || options.method == Equalise::kAsinq) {
    json["tile"] = options.sinkhorn.tile;
    json["iterations"] = options.sinkhorn.iterations;
    json["shared"] = name_of(kSharedScales, options.shared);
    json["repeats"] = options.repeats;
  }
  if (options.method == Equalise::kAwq || options.method == Equalise::kAsinq) {
    json["points"] = options.points;
    json["rows"] = options.rows;
    json["by_weight"] = options.by_weight;
    json["norm"] = name_of(kOutputNorms, options.norm);
    if (options.back > 0) json["back"] = options.back;
  }
  return json;
}

Json reconstruction_json(const ReconstructOptions& given, int64_t windows) {
  const ReconstructOptions options = with_defaults(given, windows);
  return {{"stage", "reconstruct"},
          {"tensors", "linear"},
          {"method", name_of(kReconstructions, options.method)},
          {"epochs", options.epochs},
          {"batch", options.batch},
          {"kept_back", options.kept_back},
          {"weight_rate", options.weight_rate},
          {"scale_rate", options.scale_rate},
          {"loss", options.relative ? "relative" : "absolute"},
          {"shift", options.shift},
          {"seed", options.seed}};
}

Json calibration_json(const QuantizeOptions& options) {
  if (!options.calibration) return nullptr;
  const CalibrationText& text = *options.calibration;
  Json json = {{"text", text.source},
               {"hash", windows_hash(text.windows)},
               {"windows", text.windows.count()},
               {"length", text.windows.S},
               {"seed", text.seed},
               {"inputs", options.fit.sequential ? "sequential"
                          : options.prefix       ? "prefix"
                                                 : "full"}};
  if (options.fit.sequential) {
    json["weights"] = name_of(kTokenWeights, options.fit.weights);
    json["shift"] = options.fit.shift;
    json["residual"] = options.fit.residual;
  }
  return json;
}

// Fields of one JSON object, every one of which must be asked for.
class Fields {
 public:
  Fields(const Json& json, std::string where, const std::string& file)
      : json_(json), where_(std::move(where)), file_(file) {
    if (!json.is_object()) fail(where_, "an object", json.type_name());
  }

  template <class T>
  T get(const char* name) {
    const Json& value = at(name);
    const bool fits = std::is_same_v<T, std::string> ? value.is_string()
                      : std::is_same_v<T, bool>      ? value.is_boolean()
                      : std::is_integral_v<T>        ? value.is_number_integer()
                                                     : value.is_number();
    if (!fits) fail(path(name), kind<T>(), value.dump());
    return value.get<T>();
  }
  const Json& at(const char* name) {
    seen_.emplace_back(name);
    const auto found = json_.find(name);
    if (found == json_.end()) fail(path(name), "a value", "none");
    return *found;
  }
  bool has(const char* name) const { return json_.contains(name); }
  template <class Value, std::size_t n>
  Value choice(const char* name, const Named<Value> (&table)[n]) {
    const auto text = get<std::string>(name);
    const Value* value = value_of(table, text);
    if (value != nullptr) return *value;
    std::string expected;
    for (const auto& entry : table)
      expected += (expected.empty() ? "" : " or ") + std::string(entry.name);
    fail(path(name), expected, text);
  }
  Fields object(const char* name) { return {at(name), path(name), file_}; }
  void require_no_more() const {
    for (const auto& [name, value] : json_.items())
      if (std::find(seen_.begin(), seen_.end(), name) == seen_.end())
        fail(path(name), "no such field", value.dump());
  }
  [[noreturn]] void fail(const std::string& what, const std::string& expected,
                         const std::string& found) const {
    throw FormatError("invalid recipe (" + file_ + ": " + what + ": expected " + expected +
                      ", found " + found.substr(0, 60) + ")");
  }
  std::string path(const std::string& name) const {
    return where_.empty() ? name : where_ + "." + name;
  }

 private:
  template <class T>
  static const char* kind() {
    return std::is_same_v<T, std::string> ? "a text"
           : std::is_same_v<T, bool>      ? "true or false"
           : std::is_integral_v<T>        ? "a whole number"
                                          : "a number";
  }

  const Json& json_;
  std::string where_, file_;
  std::vector<std::string> seen_;
};

Method parse_method(Fields& stage) {
  Method method;
  method.rounding = stage.choice("rounding", kRoundings);
  method.bits = stage.get<int>("bits");
  method.group = stage.get<int64_t>("group");
  method.grid = stage.choice("grid", kGrids);
  method.rule = stage.choice("rule", kScaleRules);
  Fields rotation = stage.object("rotation");
  method.rotation = {rotation.get<int64_t>("hadamard"), rotation.get<uint64_t>("seed")};
  rotation.require_no_more();
  if (method.rounding != Rounding::kLdlq) return method;
  method.order = stage.choice("order", kColumnOrders);
  method.scales = stage.choice("scales", kGroupScales);
  method.greedy_passes = stage.get<int>("greedy_passes");
  if (stage.has("trials")) method.trials = stage.get<int>("trials");
  if (stage.has("refits")) method.refits = stage.get<int>("refits");
  method.damping = stage.get<double>("damping");
  return method;
}

int64_t between(Fields& stage, const char* name, int64_t least, int64_t most) {
  const auto value = stage.get<int64_t>(name);
  if (value < least || value > most)
    stage.fail(stage.path(name), std::to_string(least) + ".." + std::to_string(most),
               std::to_string(value));
  return value;
}

void parse_equalise(Fields& stage, EqualiseOptions* options) {
  constexpr int64_t kMost = 1000, kMostColumns = int64_t{1} << 30;
  const auto count = [&](const char* name, int64_t least) {
    return static_cast<int>(between(stage, name, least, kMost));
  };
  options->method = stage.choice("method", kEqualiseMethods);
  if (options->method == Equalise::kSinkhorn || options->method == Equalise::kAsinq) {
    options->sinkhorn.tile = between(stage, "tile", 0, kMostColumns);
    options->sinkhorn.iterations = count("iterations", 0);
    options->shared = stage.choice("shared", kSharedScales);
    options->repeats = count("repeats", 0);
  }
  if (options->method == Equalise::kAwq || options->method == Equalise::kAsinq) {
    options->points = count("points", 1);
    options->rows = between(stage, "rows", 0, kMostColumns);
    options->by_weight = stage.get<bool>("by_weight");
    options->norm = stage.choice("norm", kOutputNorms);
    if (stage.has("back")) options->back = count("back", 0);
  }
  stage.require_no_more();
}

ReconstructOptions parse_reconstruction(Fields& stage) {
  ReconstructOptions options;
  options.method = stage.choice("method", kReconstructions);
  options.epochs = stage.get<int64_t>("epochs");
  options.batch = stage.get<int64_t>("batch");
  options.kept_back = stage.get<int64_t>("kept_back");
  options.weight_rate = stage.get<double>("weight_rate");
  options.scale_rate = stage.get<double>("scale_rate");
  const auto loss = stage.get<std::string>("loss");
  options.relative = loss == "relative";
  options.shift = stage.has("shift") ? stage.get<double>("shift") : 1;  // recipes of old have none
  if (!(options.shift >= 0 && options.shift <= 1))
    stage.fail(stage.path("shift"), "0..1", std::to_string(options.shift));
  if (!options.relative && loss != "absolute")
    stage.fail(stage.path("loss"), "relative or absolute", loss);
  options.seed = stage.get<uint64_t>("seed");
  if (options.epochs < 1) stage.fail(stage.path("epochs"), "at least 1", "less");
  if (options.batch < 1) stage.fail(stage.path("batch"), "at least 1", "less");
  return options;
}

void parse_stage(Fields stage, QuantizeOptions* options) {
  const auto kind = stage.get<std::string>("stage");
  if (kind == "equalise") return parse_equalise(stage, &options->equalise);
  const auto tensors = stage.get<std::string>("tensors");
  Method* to = tensors == "linear"      ? &options->linear
               : tensors == "embedding" ? &options->embedding
               : tensors == "head"      ? &options->head
               : tensors == "vision"    ? &options->vision
                                        : nullptr;
  if (to == nullptr)
    stage.fail(stage.path("tensors"), "linear, embedding, head or vision", tensors);
  if (kind == "float") {
    to->bits = 32;
  } else if (kind == "round") {
    *to = parse_method(stage);
  } else if (kind == "reconstruct" && tensors == "linear") {
    options->reconstruction = parse_reconstruction(stage);
  } else {
    stage.fail(stage.path("stage"), "round, float, equalise or (linear) reconstruct", kind);
  }
  stage.require_no_more();
}

// [[strips, bits], ...]; whether they are the matrix's is make_plan()'s business.
std::vector<models::Band> parse_bands(const Fields& recipe, const std::string& name,
                                      const Json& list) {
  std::vector<models::Band> bands;
  for (const Json& pair : list) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() ||
        !pair[1].is_number_integer())
      recipe.fail("bands." + name, "pairs of strips and bits", pair.dump());
    bands.push_back({pair[0].get<int64_t>(), pair[1].get<int>()});
  }
  return bands;
}

Recipe::Text parse_calibration(Fields json, QuantizeOptions* options) {
  Recipe::Text text;
  text.source = json.get<std::string>("text");
  text.hash = json.get<std::string>("hash");
  text.windows = json.get<int64_t>("windows");
  text.length = json.get<int64_t>("length");
  text.seed = json.get<uint64_t>("seed");
  const auto inputs = json.get<std::string>("inputs");
  options->fit.sequential = inputs == "sequential";
  options->prefix = options->fit.sequential || inputs == "prefix";
  if (!options->prefix && inputs != "full")
    json.fail(json.path("inputs"), "sequential, prefix or full", inputs);
  if (options->fit.sequential) {
    options->fit.weights = json.choice("weights", kTokenWeights);
    options->fit.shift = json.get<double>("shift");
    options->fit.residual = json.get<double>("residual");
  }
  json.require_no_more();
  return text;
}

}  // namespace

Recipe parse_recipe(std::string_view text, const std::string& file) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) throw FormatError("invalid recipe (" + file + ": expected JSON)");
  const bool inside = json.is_object() && json.contains("recipe");
  Fields recipe(inside ? json["recipe"] : json, "", file);
  const auto schema = recipe.get<std::string>("schema");
  if (schema != kSchema) recipe.fail("schema", kSchema, schema);
  recipe.get<std::string>("program");
  Recipe result;
  Fields source = recipe.object("source");
  result.source_hash = source.get<std::string>("hash");
  if (!recipe.at("calibration").is_null())
    result.calibration = parse_calibration(recipe.object("calibration"), &result.options);
  const Json& stages = recipe.at("stages");
  if (!stages.is_array()) recipe.fail("stages", "a list", stages.type_name());
  for (std::size_t i = 0; i < stages.size(); ++i)
    parse_stage({stages[i], "stages[" + std::to_string(i) + "]", file}, &result.options);
  if (recipe.has("bits")) {
    Fields bits = recipe.object("bits");
    for (const auto& [name, value] : recipe.at("bits").items())
      result.options.bits[name] = bits.get<int>(name.c_str());
  }
  if (recipe.has("bands")) {
    for (const auto& [name, list] : recipe.at("bands").items())
      result.options.bands[name] = parse_bands(recipe, name, list);
  }
  if (recipe.has("pruning"))
    result.options.pruning = pruning_from_json(recipe.at("pruning").dump(), file);
  if (recipe.has("allocation")) result.options.allocation = recipe.at("allocation").dump();
  recipe.require_no_more();
  return result;
}

std::string recipe_json(const models::SourceModel& source, const QuantizeOptions& options) {
  Json stages = Json::array();
  if (options.equalise.method != Equalise::kNone) stages.push_back(equalise_json(options.equalise));
  stages.push_back(stage_json("embedding", options.embedding));
  stages.push_back(stage_json("linear", options.linear));
  if (!source.config.tied_head) stages.push_back(stage_json("head", options.head));
  if (source.config.vision) stages.push_back(stage_json("vision", options.vision));
  if (options.reconstruction.method != Reconstruction::kNone && options.calibration)
    stages.push_back(
        reconstruction_json(options.reconstruction, options.calibration->windows.count()));
  Json recipe = {{"schema", kSchema},
                 {"program", kProgram},
                 {"source", {{"hash", source.hash}, {"weights", source.description}}},
                 {"calibration", calibration_json(options)},
                 {"stages", stages}};
  if (!options.bits.empty()) recipe["bits"] = options.bits;
  for (const auto& [name, bands] : options.bands)
    for (const models::Band& band : bands)
      recipe["bands"][name].push_back({band.strips, band.bits});
  if (options.pruning) recipe["pruning"] = Json::parse(pruning_to_json(*options.pruning));
  if (!options.allocation.empty()) recipe["allocation"] = Json::parse(options.allocation);
  return recipe.dump();
}

}  // namespace crumb::quant

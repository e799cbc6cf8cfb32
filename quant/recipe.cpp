#include "quant/recipe.h"

#include <nlohmann/json.hpp>

#include "quant/calibration_cache.h"
#include "quant/version.h"

namespace crumb::quant {
namespace {

using Json = nlohmann::ordered_json;

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
    json["damping"] = method.damping;
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
          {"seed", options.seed}};
}

Json calibration_json(const QuantizeOptions& options) {
  if (!options.calibration) return nullptr;
  const CalibrationText& text = *options.calibration;
  return {{"text", text.source},
          {"hash", windows_hash(text.windows)},
          {"windows", text.windows.count()},
          {"length", text.windows.S},
          {"seed", text.seed},
          {"inputs", options.prefix ? "prefix" : "full"}};
}

}  // namespace

std::string recipe_json(const models::SourceModel& source, const QuantizeOptions& options) {
  Json stages = Json::array();
  stages.push_back(stage_json("embedding", options.embedding));
  stages.push_back(stage_json("linear", options.linear));
  if (!source.config.tied_head) stages.push_back(stage_json("head", options.head));
  if (options.reconstruction.method != Reconstruction::kNone && options.calibration)
    stages.push_back(
        reconstruction_json(options.reconstruction, options.calibration->windows.count()));
  Json recipe = {{"schema", "crumb.recipe/2"},
                 {"program", kProgram},
                 {"source", {{"hash", source.hash}, {"weights", source.description}}},
                 {"calibration", calibration_json(options)},
                 {"stages", stages}};
  if (!options.bits.empty()) recipe["bits"] = options.bits;
  return recipe.dump();
}

}  // namespace crumb::quant

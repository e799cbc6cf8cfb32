#include <nlohmann/json.hpp>

#include "models/errors.h"
#include "models/mapped_file.h"
#include "quant/method.h"
#include "quant/train/train_job.h"

namespace crumb::quant::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr Named<LossKind> kKinds[] = {{"forward_kl", LossKind::kForwardKl},
                                      {"reverse_kl", LossKind::kReverseKl},
                                      {"jsd", LossKind::kJsd},
                                      {"cakld", LossKind::kCakld},
                                      {"cross_entropy", LossKind::kCrossEntropy}};
constexpr Named<Optimiser> kOptimisers[] = {{"adam", Optimiser::kAdam}, {"muon", Optimiser::kMuon}};

template <class Value, std::size_t n>
Value known(const Named<Value> (&table)[n], const char* field, const std::string& name) {
  const Value* value = value_of(table, name);
  if (value == nullptr)
    throw Error(ExitCode::kUsage,
                std::string("training recipe (unknown ") + field + ": " + name + ")");
  return *value;
}

// Calls visit(name, member) for every plain field: the one list of them.
template <class Recipe, class Visit>
void for_noise_fields(Recipe& r, const Visit& visit) {
  visit("share", r.share);
  visit("average_bits", r.average_bits);
  visit("costs", r.costs);
  visit("width_rate", r.width_rate);
  visit("budget_weight", r.budget_weight);
  visit("random_widths", r.random_widths);
  visit("input_bits", r.input_bits);
  visit("input_rate", r.input_rate);
}
template <class Recipe, class Visit>
void for_fields(Recipe& r, const Visit& visit) {
  visit("data", r.data);
  visit("kept_back", r.kept_back);
  visit("kept_windows", r.kept_windows);
  visit("batch", r.batch);
  visit("window", r.window);
  visit("steps", r.steps);
  visit("warmup", r.warmup);
  visit("rate", r.rate);
  visit("scale_rate", r.scale_rate);
  visit("floor", r.floor);
  visit("beta1", r.beta1);
  visit("beta2", r.beta2);
  visit("gradient_limit", r.gradient_limit);
  visit("momentum", r.momentum);
  visit("forward_kl_steps", r.forward_kl_steps);
  visit("seed", r.seed);
  visit("report_every", r.report_every);
  visit("evaluate_every", r.evaluate_every);
  visit("save_seconds", r.save_seconds);
}

// Moves a field out of an object if it is there.
struct TakeField {
  Json* json;
  template <class Value>
  void operator()(const char* name, Value& value) const {
    if (!json->contains(name)) return;
    json->at(name).get_to(value);
    json->erase(name);
  }
};

void require_lawful(const TrainRecipe& r) {
  const auto refuse = [](const std::string& text) {
    throw Error(ExitCode::kUsage, "training recipe (" + text + ")");
  };
  if (r.data.empty()) refuse("data: expected token files, found none");
  if (r.steps < 1 || r.batch < 1 || r.window < 1)
    refuse("steps, batch, window: expected 1 or more");
  if (r.warmup < 0 || r.warmup >= r.steps) refuse("warmup: expected less than steps");
  if (!r.kept_back.empty() && r.kept_windows % r.batch != 0)
    refuse("kept_windows: expected a multiple of batch, found " + std::to_string(r.kept_windows));
  if (!(r.momentum >= 0 && r.momentum < 1)) refuse("momentum: expected 0 or more and less than 1");
  if (r.noise) {
    const NoiseRecipe& n = *r.noise;
    if (!(n.share >= 0 && n.share <= 1)) refuse("noise.share: expected 0 to 1");
    if (n.learns_widths() && (n.share == 0 || n.share == 1))
      refuse(
          "noise.share: expected more than 0 and less than 1, so that widths are learned and "
          "settle");
    if (n.input_bits != 0 && (n.input_bits < 2 || n.input_bits > 8))
      refuse("noise.input_bits: expected 0 or 2 to 8");
    if (n.average_bits != 0 && !(n.average_bits >= kWidths.front()))
      refuse("noise.average_bits: expected 2 or more");
    if (n.average_bits > 0 && !n.costs.empty())
      refuse("noise: expected average_bits or costs, found both");
    if (!(n.width_rate > 0 && n.budget_weight > 0 && n.input_rate >= 0))
      refuse("noise.width_rate, noise.budget_weight, noise.input_rate: expected more than 0");
  }
  if (r.report_every < 1 || r.evaluate_every < 1)
    refuse("report_every, evaluate_every: expected 1 or more");
}

}  // namespace

std::string to_json(const TrainRecipe& recipe) {
  Json json;
  for_fields(recipe, [&](const char* name, const auto& value) { json[name] = value; });
  if (recipe.noise) {
    Json& noise = json["noise"] = Json::object();
    for_noise_fields(*recipe.noise,
                     [&](const char* name, const auto& value) { noise[name] = value; });
  }
  json["optimiser"] = name_of(kOptimisers, recipe.optimiser);
  json["loss"] = {{"kind", name_of(kKinds, recipe.loss.kind)},
                  {"beta", static_cast<double>(recipe.loss.beta)}};
  return json.dump();
}

std::optional<WidthCosts> width_costs(const TrainRecipe& recipe,
                                      std::span<const MatrixPart> parts) {
  if (!recipe.noise || !recipe.noise->learns_widths()) return std::nullopt;
  const NoiseRecipe& noise = *recipe.noise;
  if (noise.costs.empty()) return byte_costs(parts, noise.average_bits);
  const models::MappedFile file(noise.costs);
  const auto bytes = file.bytes();
  return costs_from_json(std::string(bytes.begin(), bytes.end()), parts);
}

TrainRecipe recipe_from_json(const std::string& text) {
  TrainRecipe recipe;
  try {
    Json json = Json::parse(text);
    for_fields(recipe, TakeField{&json});
    if (json.contains("noise")) {
      for_noise_fields(recipe.noise.emplace(), TakeField{&json.at("noise")});
      if (!json.at("noise").empty())
        throw Error(ExitCode::kUsage, "training recipe (unknown field: noise." +
                                          json.at("noise").items().begin().key() + ")");
      json.erase("noise");
    }
    if (json.contains("loss")) {
      recipe.loss.kind = known(kKinds, "loss", json.at("loss").at("kind"));
      recipe.loss.beta = json.at("loss").value("beta", 0.5f);
      json.erase("loss");
    }
    if (json.contains("optimiser")) {
      recipe.optimiser = known(kOptimisers, "optimiser", json.at("optimiser"));
      json.erase("optimiser");
    }
    if (!json.empty())
      throw Error(ExitCode::kUsage,
                  "training recipe (unknown field: " + json.items().begin().key() + ")");
  } catch (const Json::exception& error) {
    throw Error(ExitCode::kUsage, std::string("training recipe (") + error.what() + ")");
  }
  require_lawful(recipe);
  return recipe;
}

}  // namespace crumb::quant::train

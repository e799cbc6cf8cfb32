#include "quant/train/train_recipe.h"

#include <cmath>

#include "models/errors.h"
#include "models/json.h"
#include "models/mapped_file.h"
#include "quant/method.h"

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
void for_generate_fields(Recipe& r, const Visit& visit) {
  visit("script", r.script);
  visit("share", r.share);
  visit("rows", r.rows);
  visit("temperature", r.temperature);
  visit("min_p", r.min_p);
}
template <class Recipe, class Visit>
void for_fields(Recipe& r, const Visit& visit) {
  visit("teacher", r.teacher);
  visit("start", r.start);
  visit("masters", r.masters);
  visit("data", r.data);
  visit("text", r.text);
  visit("kept_back", r.kept_back);
  visit("kept_windows", r.kept_windows);
  visit("batch", r.batch);
  visit("window", r.window);
  visit("accumulate", r.accumulate);
  visit("steps", r.steps);
  visit("warmup", r.warmup);
  visit("rate", r.rate);
  visit("scale_rate", r.scale_rate);
  visit("embedding_rate", r.embedding_rate);
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
  visit("gate", r.gate);
  visit("inputs", r.inputs);
}

[[noreturn]] void refuse(const std::string& name, const std::string& text) {
  throw Error(ExitCode::kUsage, "training recipe (" + name + ": " + text + ")");
}

template <class Require>
void require_lawful(const NoiseRecipe& n, const Require& require) {
  require(n.share >= 0 && n.share <= 1, "noise.share: expected 0 to 1");
  require(
      !n.learns_widths() || (n.share > 0 && n.share < 1),
      "noise.share: expected more than 0 and less than 1, so that widths are learned and settle");
  require(n.average_bits == 0 || n.average_bits >= kWidths.front(),
          "noise.average_bits: expected 2 or more");
  require(n.average_bits == 0 || n.costs.empty(),
          "noise: expected average_bits or costs, found both");
  require(n.width_rate > 0 && n.budget_weight > 0 && n.input_rate > 0,
          "noise.width_rate, noise.budget_weight, noise.input_rate: expected more than 0");
  require(n.input_bits == 0 || (n.input_bits >= 2 && n.input_bits <= 8),
          "noise.input_bits: expected 0 or 2 to 8");
}

template <class Require>
void require_lawful(const GenerateRecipe& g, const Require& require) {
  require(!g.script.empty(), "generate.script: expected a file, found none");
  require(g.share > 0 && g.share <= 1, "generate.share: expected more than 0, at most 1");
  require(g.rows >= 1 && g.rows <= int64_t{1} << 20, "generate.rows: expected 1 to 1048576");
  require(g.temperature > 0 && g.temperature <= 100,
          "generate.temperature: expected more than 0, so that rows differ");
  require(g.min_p >= 0 && g.min_p <= 1, "generate.min_p: expected 0 to 1");
}

void require_lawful(const TrainRecipe& r, const std::string& name) {
  const auto require = [&](bool lawful, const char* text) {
    if (!lawful) refuse(name, text);
  };
  constexpr int64_t kMost = int64_t{1} << 24;
  const auto count = [](int64_t n) { return n >= 1 && n <= kMost; };
  const auto positive = [](double x) { return x > 0 && x < 1e9; };
  const auto share = [](double x) { return x >= 0 && x < 1; };
  require(!r.data.empty() || !r.text.empty() || r.generate,
          "data, text: expected files, found none");
  require(count(r.batch) && count(r.window) && count(r.accumulate) && r.steps >= 1,
          "steps, batch, window, accumulate: expected 1 or more");
  require(r.warmup >= 0 && r.warmup < r.steps, "warmup: expected less than steps");
  require(r.kept_windows >= 0 && r.kept_windows <= kMost, "kept_windows: expected 0 or more");
  require(r.kept_back.empty() || r.kept_windows % r.batch == 0,
          "kept_windows: expected a multiple of batch");
  require(r.report_every >= 1 && r.evaluate_every >= 1,
          "report_every, evaluate_every: expected 1 or more");
  require(positive(r.rate) && positive(r.scale_rate) && positive(r.gradient_limit),
          "rate, scale_rate, gradient_limit: expected more than 0");
  require(share(r.beta1) && share(r.beta2) && share(r.momentum),
          "beta1, beta2, momentum: expected 0 or more, less than 1");
  require(r.floor >= 0 && r.floor <= 1 && r.loss.beta >= 0 && r.loss.beta <= 1,
          "floor, loss.beta: expected 0 to 1");
  require(r.save_seconds > 0 && r.gate >= 0, "save_seconds, gate: expected more than 0");
  require(r.embedding_rate == 0 || positive(r.embedding_rate),
          "embedding_rate: expected 0 or more");
  if (r.noise) require_lawful(*r.noise, require);
  if (r.generate) {
    require_lawful(*r.generate, require);
    require(!r.data.empty() || !r.text.empty() || r.generated_windows() == r.step_windows(),
            "data, text: expected files beside generate.share less than 1, found none");
  }
  require(!r.noise || r.embedding_rate == 0, "embedding_rate: expected 0 beside noise");
}

}  // namespace

int64_t TrainRecipe::generated_windows() const {
  if (!generate) return 0;
  return std::llround(std::ceil(generate->share * static_cast<double>(step_windows())));
}

Sampling sampling_of(const TrainRecipe& recipe) {
  return {static_cast<float>(recipe.generate->temperature),
          static_cast<float>(recipe.generate->min_p), recipe.seed};
}

std::string to_json(const TrainRecipe& recipe) {
  Json json;
  for_fields(recipe, [&](const char* name, const auto& value) { json[name] = value; });
  if (recipe.noise) {
    Json& noise = json["noise"] = Json::object();
    for_noise_fields(*recipe.noise,
                     [&](const char* name, const auto& value) { noise[name] = value; });
  }
  if (recipe.generate) {
    Json& generate = json["generate"] = Json::object();
    for_generate_fields(*recipe.generate,
                        [&](const char* name, const auto& value) { generate[name] = value; });
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

TrainRecipe recipe_from_json(const std::string& text, const std::string& name) {
  TrainRecipe recipe;
  std::string field;
  try {
    Json json = Json::parse(text);
    if (!json.is_object()) refuse(name, "expected a JSON object");
    // Moves a field out of an object if it is there.
    const auto taker = [&](Json& from) {
      return [&](const char* key, auto& value) {
        if (!from.contains(key)) return;
        field = key;
        from.at(key).get_to(value);
        from.erase(key);
      };
    };
    for_fields(recipe, taker(json));
    const auto take_object = [&](const char* key, const auto& visit_fields) {
      if (!json.contains(key)) return;
      field = key;
      Json& object = json.at(key);
      visit_fields(taker(object));
      if (!object.empty())
        refuse(name, "unknown field '" + (key + ("." + object.items().begin().key())) + "'");
      json.erase(key);
    };
    take_object("noise", [&](const auto& take) { for_noise_fields(recipe.noise.emplace(), take); });
    take_object("generate",
                [&](const auto& take) { for_generate_fields(recipe.generate.emplace(), take); });
    if (json.contains("loss")) {
      field = "loss";
      recipe.loss.kind = known(kKinds, "loss", json.at("loss").at("kind"));
      recipe.loss.beta = json.at("loss").value("beta", 0.5f);
      json.erase("loss");
    }
    if (json.contains("optimiser")) {
      field = "optimiser";
      recipe.optimiser = known(kOptimisers, "optimiser", json.at("optimiser"));
      json.erase("optimiser");
    }
    if (!json.empty()) refuse(name, "unknown field '" + json.items().begin().key() + "'");
  } catch (const Json::exception& error) {
    refuse(name, (field.empty() ? "" : field + ": ") + std::string(error.what()));
  }
  require_lawful(recipe, name);
  return recipe;
}

bool same_run(const TrainRecipe& a, const TrainRecipe& b) {
  const bool known = !a.inputs.empty() && !b.inputs.empty();
  const auto text = [&](TrainRecipe r) {
    r.teacher = r.start = r.masters = "";
    r.report_every = r.evaluate_every = 1;
    r.save_seconds = 1;
    r.gate = 0;
    if (known) {
      r.data = r.text = {};
      r.kept_back = "";
      if (r.generate) r.generate->script = "";
    } else {
      r.inputs = "";
    }
    return to_json(r);
  };
  return text(a) == text(b);
}

std::string stage_json(const TrainRecipe& recipe, const TrainingPlace& place,
                       const models::SourceModel& teacher, std::string_view arithmetic) {
  const Json stage = {{"stage", "distill"},
                      {"teacher", {{"hash", teacher.hash}, {"weights", teacher.description}}},
                      {"teacher_arithmetic", arithmetic},
                      {"steps_done", place.step},
                      {"tokens", place.cursor * recipe.window},
                      {"restarts", place.restarts},
                      {"recipe", Json::parse(to_json(recipe))}};
  return stage.dump();
}

}  // namespace crumb::quant::train

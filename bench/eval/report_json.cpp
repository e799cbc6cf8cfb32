#include <algorithm>
#include <cmath>

#include "bench/eval/report.h"
#include "models/errors.h"
#include "models/json.h"
#include "models/json_text.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "crumb.eval.tasks/1";
constexpr std::size_t kMaxBytes = std::size_t{1} << 30;
constexpr int64_t kMost = int64_t{1} << 50;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json optional_number(const std::optional<double>& value) {
  return value ? number(*value) : Json(nullptr);
}

Json model_json(const ModelDescription& model) {
  return {{"name", model.name},
          {"path", model.path},
          {"weights", model.weights},
          {"hash", model.hash},
          {"file_bytes", model.file_bytes},
          {"parameters", model.parameters},
          {"linear_bpw", number(model.linear_bpw)},
          {"head_bits", number(model.head_bits)},
          {"total_bpw", number(model.total_bpw)}};
}

void add_paired(Json& json, const std::string& prefix, const PairedResult& paired) {
  json["delta" + prefix] = number(paired.delta);
  json["delta" + prefix + "_stderr"] = number(paired.error);
  json["delta" + prefix + "_ci95"] = {number(paired.interval[0]), number(paired.interval[1])};
  json["reference" + prefix] = number(paired.reference);
}

void add_reference(Json& json, const ReferenceResult& result) {
  json["paired_metric"] = result.paired_metric;
  json["paired_items"] = result.paired.items;
  add_paired(json, "", result.paired);
  if (const auto& flips = result.paired.flips) {
    json["agreement"] = number(flips->agreement);
    json["kappa"] = optional_number(flips->kappa);
    json["won"] = flips->won;
    json["lost"] = flips->lost;
    json["p"] = number(flips->p);
  }
  if (result.same_choice) json["same_choice"] = number(*result.same_choice);
  if (result.same_text) json["same_text"] = number(*result.same_text);
  if (result.nll) add_paired(json, "_nll", *result.nll);
  for (std::size_t i = 0; i < result.others.size(); ++i)
    add_paired(json, "_" + result.other_names[i], result.others[i]);
}

Json items_json(const std::vector<ReportItem>& items) {
  Json all = Json::array();
  for (const ReportItem& item : items) {
    Json one = {{"id", item.id}, {"value", number(item.value)}, {"weight", number(item.weight)}};
    if (item.nll) one["nll"] = number(*item.nll);
    if (item.choice >= 0) one["choice"] = item.choice;
    if (!item.log_p.empty()) {
      Json log_p = Json::array();
      for (const double value : item.log_p) log_p.push_back(number(value));
      one["log_p"] = log_p;
    }
    all.push_back(one);
  }
  return all;
}

Json task_json(const TaskReport& task, bool items) {
  Json json = {{"n", task.n},
               {"available", task.available},
               {"metric", task.metric},
               {"dimension", task.dimension},
               {"protocol", task.protocol},
               {"version", task.version},
               {"data", task.data_hash}};
  Json errors = Json::object(), groups = Json::object(), derived = Json::array();
  for (const Metric& metric : task.metrics) {
    if (metric.name.find('/') != std::string::npos) {
      groups[metric.name] = {number(metric.value),
                             metric.error < 0 ? Json(nullptr) : number(metric.error),
                             number(metric.weight)};
      continue;
    }
    json[metric.name] = number(metric.value);
    errors[metric.name] = metric.error < 0 ? Json(nullptr) : number(metric.error);
    if (metric.derived) derived.push_back(metric.name);
    if (metric.name == task.metric)
      json["stderr"] = metric.error < 0 ? Json(nullptr) : number(metric.error);
  }
  json["errors"] = errors;
  json["derived"] = derived;
  if (!groups.empty()) json["groups"] = groups;
  Json floors = Json::object();
  for (const Floor& floor : task.floors) floors[floor.name] = number(floor.value);
  json["floors"] = floors;
  if (task.unscored > 0) json["unscored"] = task.unscored;
  if (task.reference) add_reference(json, *task.reference);
  if (items) json["items"] = items_json(task.items);
  return json;
}

Json efficiency_json(const Efficiency& e) {
  return {{"isa", e.isa},
          {"cpu", e.cpu},
          {"threads", e.threads},
          {"peak_rss_bytes", e.peak_rss_bytes},
          {"kv_bytes_per_token", e.kv_bytes_per_token},
          {"prefill_tokens_per_s", number(e.prefill_tokens_per_s)},
          {"decode_tokens_per_s", number(e.decode_tokens_per_s)},
          {"joules_per_token", optional_number(e.joules_per_token)},
          {"energy", e.energy_note}};
}

// Reading -----------------------------------------------------------------------------------------

double read_number(const nlohmann::json& json, const char* field, const models::JsonPlace& place) {
  const auto found = json.find(field);
  if (found == json.end() || !found->is_number())
    models::json_fail(place, field, "a number", found == json.end() ? "nothing" : "another type");
  return found->get<double>();
}

std::optional<double> read_optional(const nlohmann::json& json, const char* field,
                                    const models::JsonPlace& place) {
  const auto found = json.find(field);
  if (found == json.end() || found->is_null()) return std::nullopt;
  return read_number(json, field, place);
}

const nlohmann::json& object_of(const nlohmann::json& json, const char* field,
                                const models::JsonPlace& place) {
  const auto found = json.find(field);
  if (found == json.end() || !found->is_object())
    models::json_fail(place, field, "an object", found == json.end() ? "nothing" : "another type");
  return *found;
}

ModelDescription read_model(const nlohmann::json& json, const models::JsonPlace& place) {
  ModelDescription model;
  model.name = models::json_string(json, "name", place);
  model.path = models::json_string(json, "path", place);
  model.weights = models::json_string(json, "weights", place);
  model.hash = models::json_string(json, "hash", place);
  model.file_bytes = models::json_int(json, "file_bytes", 0, kMost, place);
  model.parameters = models::json_int(json, "parameters", 0, kMost, place);
  model.linear_bpw = read_optional(json, "linear_bpw", place).value_or(0);
  model.head_bits = read_optional(json, "head_bits", place).value_or(0);
  model.total_bpw = read_optional(json, "total_bpw", place).value_or(0);
  return model;
}

void read_metrics(TaskReport& task, const nlohmann::json& json, const models::JsonPlace& place) {
  std::vector<std::string> derived;
  if (const auto found = json.find("derived"); found != json.end() && found->is_array())
    for (const auto& name : *found)
      if (name.is_string()) derived.push_back(name.get<std::string>());
  for (const auto& [name, error] : object_of(json, "errors", place).items()) {
    const auto value = read_optional(json, name.c_str(), place);
    if (!value) continue;
    const bool is_derived = std::find(derived.begin(), derived.end(), name) != derived.end();
    task.metrics.push_back(
        {name, *value, error.is_number() ? error.get<double>() : -1, 0, is_derived});
  }
}

ReportItem read_item(const nlohmann::json& json, const models::JsonPlace& place) {
  if (!json.is_object()) models::json_fail(place, "items", "objects", json.type_name());
  ReportItem item;
  item.id = models::json_string(json, "id", place);
  item.value = read_number(json, "value", place);
  item.weight = read_number(json, "weight", place);
  if (!(item.weight >= 0)) models::json_fail(place, "weight", "0 or more", "less");
  item.nll = read_optional(json, "nll", place);
  if (json.contains("choice")) item.choice = models::json_int(json, "choice", 0, kMost, place);
  return item;
}

TaskReport read_task(const std::string& name, const nlohmann::json& json,
                     const models::JsonPlace& place) {
  TaskReport task;
  task.name = name;
  task.n = models::json_int(json, "n", 0, kMost, place);
  task.available = models::json_int(json, "available", 0, kMost, place);
  task.metric = models::json_string(json, "metric", place);
  task.dimension = models::json_string(json, "dimension", place);
  task.protocol = models::json_string(json, "protocol", place);
  task.version = models::json_int(json, "version", 0, kMost, place);
  task.data_hash = models::json_string(json, "data", place);
  read_metrics(task, json, place);
  const auto& floors = object_of(json, "floors", place);
  for (const auto& [floor, value] : floors.items())
    task.floors.push_back({floor, read_number(floors, floor.c_str(), place)});
  const auto items = json.find("items");
  if (items == json.end()) return task;
  if (!items->is_array()) models::json_fail(place, "items", "an array", items->type_name());
  for (const auto& item : *items) task.items.push_back(read_item(item, place));
  return task;
}

Efficiency read_efficiency(const nlohmann::json& json, const models::JsonPlace& place) {
  Efficiency e;
  e.isa = models::json_string(json, "isa", place);
  e.cpu = models::json_string(json, "cpu", place);
  e.threads = models::json_int(json, "threads", 0, kMost, place);
  e.peak_rss_bytes = models::json_int(json, "peak_rss_bytes", 0, kMost, place);
  e.kv_bytes_per_token = models::json_int(json, "kv_bytes_per_token", 0, kMost, place);
  e.prefill_tokens_per_s = read_number(json, "prefill_tokens_per_s", place);
  e.decode_tokens_per_s = read_number(json, "decode_tokens_per_s", place);
  e.joules_per_token = read_optional(json, "joules_per_token", place);
  e.energy_note = models::json_string(json, "energy", place);
  return e;
}

}  // namespace

std::string to_json(const Report& report, bool items) {
  Json json = {{"schema", kSchema}, {"model", model_json(report.model)}};
  if (report.reference) json["reference"] = model_json(*report.reference);
  json["settings"] = {{"kv", report.kv},
                      {"chat", report.chat},
                      {"limit", report.limit},
                      {"window", report.window},
                      {"max_tokens", report.max_tokens},
                      {"seed", report.seed}};
  for (const TaskReport& task : report.tasks) json[task.name] = task_json(task, items);
  if (!report.not_scored.empty()) json["not_scored"] = report.not_scored;
  if (report.efficiency) json["efficiency"] = efficiency_json(*report.efficiency);
  if (report.mean_kld)
    json["kl"] = {{"mean_kld", optional_number(report.mean_kld)},
                  {"stderr_kld", optional_number(report.kld_stderr)},
                  {"top1", optional_number(report.same_top)}};
  return models::json_dump(json) + "\n";
}

Report report_from_json(const std::string& text, const std::string& path) {
  const models::JsonPlace place{path, "the report"};
  const auto json = models::parse_json_object(text, place, kMaxBytes);
  if (models::json_string(json, "schema", place) != kSchema)
    models::json_fail(place, "schema", kSchema, "another");
  Report report;
  report.model = read_model(object_of(json, "model", place), place);
  const auto& settings = object_of(json, "settings", place);
  report.kv = models::json_string(settings, "kv", place);
  report.limit = models::json_int(settings, "limit", 0, INT64_MAX, place);
  report.window = models::json_int(settings, "window", 0, kMost, place);
  for (const auto& [name, value] : json.items()) {
    if (name == "model" || name == "reference" || name == "settings" || !value.is_object())
      continue;
    const std::string where = "task " + name;
    if (name == "efficiency") {
      report.efficiency = read_efficiency(value, place);
    } else if (name == "kl") {
      report.mean_kld = read_optional(value, "mean_kld", place);
      report.kld_stderr = read_optional(value, "stderr_kld", place);
      report.same_top = read_optional(value, "top1", place);
    } else {
      report.tasks.push_back(read_task(name, value, {path, where}));
    }
  }
  return report;
}

}  // namespace crumb::eval

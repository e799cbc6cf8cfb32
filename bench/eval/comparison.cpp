#include "bench/eval/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "models/json.h"
#include "models/json_text.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;

const TaskReport* find_task_in(const Report& report, const std::string& name) {
  const auto found = std::find_if(report.tasks.begin(), report.tasks.end(),
                                  [&](const TaskReport& task) { return task.name == name; });
  return found == report.tasks.end() ? nullptr : &*found;
}

// Tasks of any report: those of the table first, in its order.
std::vector<std::string> task_order(const std::vector<Report>& reports) {
  std::set<std::string> left;
  for (const Report& report : reports)
    for (const TaskReport& task : report.tasks) left.insert(task.name);
  std::vector<std::string> order;
  for (const Task* task : all_tasks())
    if (left.erase(std::string(task->name)) > 0) order.emplace_back(task->name);
  order.insert(order.end(), left.begin(), left.end());
  return order;
}

std::string label_of(const Report& report, std::set<std::string>& used) {
  const std::string name = std::filesystem::path(report.model.path).filename().string();
  const std::string base = name.empty() ? report.model.name : name;
  std::string label = base;
  for (int i = 2; !used.insert(label).second; ++i) label = base + " (" + std::to_string(i) + ")";
  return label;
}

bool is_text(const std::string& name) {
  const auto tasks = text_tasks();
  return std::any_of(tasks.begin(), tasks.end(), [&](const Task& t) { return t.name == name; });
}

using RowValue = std::function<std::optional<double>(const Comparison::Row&)>;

void add_rank(Comparison& c, const std::string& measure, const RowValue& x_of,
              const std::string& task, const RowValue& y_of) {
  std::vector<double> x, y;
  for (const Comparison::Row& row : c.rows)
    if (const auto a = x_of(row), b = y_of(row); a && b) {
      x.push_back(*a);
      y.push_back(*b);
    }
  if (x.size() >= 3) c.ranks.push_back({measure, task, std::ssize(x), spearman(x, y)});
}

// Mean over the tasks of the share of items with the first model's choice.
std::optional<double> mean_same_choice(const Comparison::Row& row) {
  double sum = 0;
  int64_t tasks = 0;
  for (const auto& task : row.tasks)
    if (task && task->reference && task->reference->same_choice) {
      sum += *task->reference->same_choice;
      ++tasks;
    }
  if (tasks == 0) return std::nullopt;
  return sum / static_cast<double>(tasks);
}

// A measure of language modelling against every task that is not a text.
void add_ranks(Comparison& c, const std::string& measure, const RowValue& value_of_row) {
  for (std::size_t t = 0; t < c.tasks.size(); ++t)
    if (!is_text(c.tasks[t]))
      add_rank(c, measure, value_of_row, c.tasks[t], [t](const Comparison::Row& row) {
        return row.tasks[t] ? std::optional(row.tasks[t]->main.value) : std::nullopt;
      });
  add_rank(c, measure, value_of_row, "mean of same choice", mean_same_choice);
}

std::optional<ComparedTask> compared(const TaskReport* task, const TaskReport* first, uint64_t seed,
                                     bool is_first) {
  if (task == nullptr) return std::nullopt;
  const Metric* main = find(task->metrics, task->metric);
  if (main == nullptr) return std::nullopt;
  ComparedTask result{*main, task->n, std::nullopt};
  if (!is_first && first != nullptr) result.reference = compare_reports(*task, *first, seed);
  return result;
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json maybe(const std::optional<double>& value) { return value ? number(*value) : Json(nullptr); }

Json task_json(const ComparedTask& task) {
  Json json = {{"n", task.n},
               {"value", number(task.main.value)},
               {"stderr", task.main.error < 0 ? Json(nullptr) : number(task.main.error)}};
  if (!task.reference) return json;
  const PairedResult& paired = task.reference->paired;
  json["paired_metric"] = task.reference->paired_metric;
  json["paired_items"] = paired.items;
  json["delta"] = number(paired.delta);
  json["delta_stderr"] = number(paired.error);
  json["delta_ci95"] = {number(paired.interval[0]), number(paired.interval[1])};
  if (paired.flips) {
    json["agreement"] = number(paired.flips->agreement);
    json["kappa"] = maybe(paired.flips->kappa);
    json["won"] = paired.flips->won;
    json["lost"] = paired.flips->lost;
    json["p"] = number(paired.flips->p);
  }
  if (task.reference->same_choice) json["same_choice"] = number(*task.reference->same_choice);
  if (task.reference->nll) {
    json["delta_nll"] = number(task.reference->nll->delta);
    json["delta_nll_stderr"] = number(task.reference->nll->error);
  }
  return json;
}

// Quoted where needed (RFC 4180).
std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string csv_number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? fmt::format("{}", *value) : "";
}

std::string csv_paired(const ComparedTask& task) {
  if (!task.reference) return ",,,,,,,,";
  const PairedResult& paired = task.reference->paired;
  std::string line = fmt::format(",{},{},{},{}", csv_number(paired.delta), csv_number(paired.error),
                                 csv_number(paired.interval[0]), csv_number(paired.interval[1]));
  if (paired.flips)
    line += fmt::format(",{},{},{},{}", paired.flips->won, paired.flips->lost,
                        csv_number(paired.flips->p), csv_number(paired.flips->kappa));
  else
    line += ",,,,";
  return line + "," +
         (task.reference->nll ? csv_number(task.reference->nll->delta) : std::string());
}

}  // namespace

Comparison compare_all(const std::vector<Report>& reports, uint64_t seed) {
  Comparison c;
  c.tasks = task_order(reports);
  for (const std::string& name : c.tasks) {
    std::optional<Floor> floor;
    std::string metric;
    for (const Report& report : reports)
      if (const TaskReport* task = find_task_in(report, name); task != nullptr && metric.empty()) {
        metric = task->metric;
        if (!task->floors.empty()) floor = highest(task->floors);
      }
    c.metrics.push_back(metric);
    c.floors.push_back(floor);
  }
  std::set<std::string> labels;
  for (const Report& report : reports) {
    const bool is_first = &report == &reports.front();
    Comparison::Row row{
        label_of(report, labels), report.model, report.efficiency, report.mean_kld, {}};
    for (const std::string& name : c.tasks) {
      const TaskReport *task = find_task_in(report, name),
                       *first = find_task_in(reports.front(), name);
      row.tasks.push_back(compared(task, first, seed, is_first));
      if (is_first || task == nullptr || first == nullptr) continue;
      const auto& result = row.tasks.back();
      if (!result || !result->reference)
        c.notices.push_back(row.label + ": " + name +
                            " cannot be paired with the first (data, version or items differ)");
      else if (result->reference->paired.items < std::max(task->n, first->n))
        c.notices.push_back(fmt::format("{}: {} paired over {} items of {} and {}", row.label, name,
                                        result->reference->paired.items, task->n, first->n));
    }
    c.rows.push_back(std::move(row));
  }
  add_ranks(c, "mean_kld", [](const Comparison::Row& row) { return row.mean_kld; });
  for (std::size_t t = 0; t < c.tasks.size(); ++t)
    if (is_text(c.tasks[t]))
      add_ranks(c, c.tasks[t] + " ppl", [t](const Comparison::Row& row) {
        return row.tasks[t] ? std::optional(row.tasks[t]->main.value) : std::nullopt;
      });
  return c;
}

std::string to_json(const Comparison& c) {
  Json tasks = Json::array(), models = Json::array(), ranks = Json::array();
  for (std::size_t t = 0; t < c.tasks.size(); ++t)
    tasks.push_back({{"name", c.tasks[t]},
                     {"metric", c.metrics[t]},
                     {"floor", c.floors[t] ? number(c.floors[t]->value) : Json(nullptr)},
                     {"floor_name", c.floors[t] ? c.floors[t]->name : ""}});
  for (const Comparison::Row& row : c.rows) {
    Json scores = Json::object();
    for (std::size_t t = 0; t < c.tasks.size(); ++t)
      if (row.tasks[t]) scores[c.tasks[t]] = task_json(*row.tasks[t]);
    Json model = {{"label", row.label},
                  {"weights", row.model.weights},
                  {"file_bytes", row.model.file_bytes},
                  {"linear_bpw", number(row.model.linear_bpw)},
                  {"head_bits", number(row.model.head_bits)},
                  {"total_bpw", number(row.model.total_bpw)},
                  {"mean_kld", maybe(row.mean_kld)}};
    if (row.efficiency) {
      model["prefill_tokens_per_s"] = number(row.efficiency->prefill_tokens_per_s);
      model["decode_tokens_per_s"] = number(row.efficiency->decode_tokens_per_s);
      model["peak_rss_bytes"] = row.efficiency->peak_rss_bytes;
      model["joules_per_token"] = maybe(row.efficiency->joules_per_token);
    }
    model["tasks"] = scores;
    models.push_back(model);
  }
  for (const Comparison::Rank& rank : c.ranks)
    ranks.push_back({{"measure", rank.measure},
                     {"task", rank.task},
                     {"models", rank.models},
                     {"rho", maybe(rank.rho)}});
  const Json json = {{"schema", "crumb.eval.compare/1"},
                     {"tasks", tasks},
                     {"models", models},
                     {"spearman", ranks},
                     {"notices", c.notices}};
  return models::json_dump(json) + "\n";
}

std::string to_csv(const Comparison& c) {
  std::string text =
      "model,weights,linear_bpw,total_bpw,file_bytes,prefill_tokens_per_s,decode_tokens_per_s,"
      "peak_rss_bytes,mean_kld,task,metric,n,value,stderr,delta,delta_stderr,delta_low,delta_high,"
      "won,lost,p,kappa,nll_rise\n";
  for (const Comparison::Row& row : c.rows)
    for (std::size_t t = 0; t < c.tasks.size(); ++t) {
      if (!row.tasks[t]) continue;
      const ComparedTask& task = *row.tasks[t];
      const auto& e = row.efficiency;
      text += fmt::format(
          "{},{},{},{},{},{},{},{},{},{},{},{},{},{}{}\n", csv_cell(row.label),
          csv_cell(row.model.weights), csv_number(row.model.linear_bpw),
          csv_number(row.model.total_bpw), row.model.file_bytes,
          e ? csv_number(e->prefill_tokens_per_s) : "", e ? csv_number(e->decode_tokens_per_s) : "",
          e ? std::to_string(e->peak_rss_bytes) : "", csv_number(row.mean_kld),
          csv_cell(c.tasks[t]), csv_cell(c.metrics[t]), task.n, csv_number(task.main.value),
          task.main.error < 0 ? "" : csv_number(task.main.error), csv_paired(task));
    }
  return text;
}

}  // namespace crumb::eval

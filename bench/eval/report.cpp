#include "bench/eval/report.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "models/errors.h"

namespace crumb::eval {
namespace {

std::string paired_metric_of(const Task& task, std::span<const ItemScore> items) {
  for (const ItemScore& item : items)
    if (value_of(item, task.metric).there) return std::string(task.metric);
  return "nll";
}

const Score* find_score(const ItemScore& item, std::string_view name) {
  for (const Score& score : item.scores)
    if (score.name == name) return &score;
  return nullptr;
}

std::vector<ReportItem> report_items(const TaskRun& run, std::span<const ItemScore> items,
                                     const std::string& metric) {
  std::vector<ReportItem> lines;
  for (std::size_t i = 0; i < items.size(); ++i) {
    ReportItem line{run.results[i].id, 0, 0, std::nullopt, items[i].choice, {}};
    for (const Likelihood& choice : run.results[i].choices) line.log_p.push_back(choice.log_p);
    if (const Score* score = find_score(items[i], metric)) {
      line.value = score->value;
      line.weight = score->weight;
    }
    if (const Score* nll = find_score(items[i], "nll"); nll != nullptr && nll->weight > 0)
      line.nll = nll->value / nll->weight;
    lines.push_back(line);
  }
  return lines;
}

std::optional<PairedResult> compare_items(std::span<const Pair> pairs, uint64_t seed) {
  double weight = 0, reference_weight = 0;
  for (const Pair& pair : pairs) {
    weight += pair.weight;
    reference_weight += pair.reference_weight;
  }
  if (weight <= 0 || reference_weight <= 0) return std::nullopt;
  return compare_pairs(pairs, seed);
}

struct Matched {
  std::vector<const ReportItem*> model, reference;
};

Matched match(const TaskReport& model, const TaskReport& reference) {
  std::map<std::string_view, const ReportItem*> by_id;
  for (const ReportItem& item : reference.items) by_id[item.id] = &item;
  Matched matched;
  for (const ReportItem& item : model.items)
    if (const auto found = by_id.find(item.id); found != by_id.end()) {
      matched.model.push_back(&item);
      matched.reference.push_back(found->second);
    }
  return matched;
}

// Every other metric that both runs have over items ("looped", "inst_strict", "acc_norm").
void compare_others(ReferenceResult& result, std::span<const ItemScore> model,
                    std::span<const ItemScore> reference, uint64_t seed) {
  std::vector<std::string> names;
  std::set<std::string> seen{result.paired_metric, "nll"};
  for (const ItemScore& item : model)
    for (const Score& score : item.scores)
      if (score.name.find('/') == std::string::npos && seen.insert(score.name).second)
        names.push_back(score.name);
  for (const std::string& name : names) {
    std::vector<Pair> pairs;
    for (std::size_t i = 0; i < model.size(); ++i) {
      const Score *a = find_score(model[i], name), *b = find_score(reference[i], name);
      if (a != nullptr && b != nullptr) pairs.push_back({a->value, a->weight, b->value, b->weight});
    }
    if (const auto paired = compare_items(pairs, seed)) {
      result.other_names.push_back(name);
      result.others.push_back(*paired);
    }
  }
}

std::optional<double> share_of_same_texts(const TaskRun& a, const TaskRun& b) {
  int64_t same = 0, all = 0;
  for (std::size_t i = 0; i < a.results.size(); ++i)
    for (std::size_t t = 0; t < std::min(a.results[i].answers.size(), b.results[i].answers.size());
         ++t) {
      ++all;
      same += a.results[i].answers[t].text == b.results[i].answers[t].text ? 1 : 0;
    }
  if (all == 0) return std::nullopt;
  return static_cast<double>(same) / static_cast<double>(all);
}

}  // namespace

ModelDescription describe(const Engine& engine, std::string hash) {
  const ModelInfo& info = engine.info();
  return {info.name,       info.path,       info.weights,   std::move(hash), info.file_bytes,
          info.parameters, info.linear_bpw, info.head_bits, info.total_bpw};
}

std::optional<ReferenceResult> compare_reports(const TaskReport& model, const TaskReport& reference,
                                               uint64_t seed) {
  if (model.data_hash != reference.data_hash || model.version != reference.version ||
      model.metric != reference.metric)
    return std::nullopt;
  const Matched items = match(model, reference);
  std::vector<Pair> pairs, nll;
  int64_t choices = 0, same = 0;
  for (std::size_t i = 0; i < items.model.size(); ++i) {
    const ReportItem &a = *items.model[i], &b = *items.reference[i];
    if (a.weight > 0 && b.weight > 0) pairs.push_back({a.value, a.weight, b.value, b.weight});
    if (a.nll && b.nll) nll.push_back({*a.nll, 1, *b.nll, 1});
    if (a.choice < 0 || b.choice < 0) continue;
    ++choices;
    same += a.choice == b.choice ? 1 : 0;
  }
  const auto paired = compare_items(pairs, seed);
  if (!paired) return std::nullopt;
  ReferenceResult result;
  result.paired_metric =
      find(model.metrics, model.metric) != nullptr && !find(model.metrics, model.metric)->derived
          ? model.metric
          : "nll";
  result.paired = *paired;
  if (choices > 0) result.same_choice = static_cast<double>(same) / static_cast<double>(choices);
  if (!nll.empty()) result.nll = compare_items(nll, seed);
  return result;
}

TaskReport report_task(const TaskRun& run, const TaskRun* reference, bool run_code, uint64_t seed) {
  const Task& task = *run.task;
  const auto items = score_items(run, reference, run_code);
  TaskReport report;
  report.name = task.name;
  report.dimension = task.dimension;
  report.metric = task.metric;
  report.protocol = task.protocol;
  report.version = task.version;
  report.data_hash = run.data_hash;
  report.n = std::ssize(items);
  report.available = run.available;
  report.dropped_bytes = run.dropped_bytes;
  report.cut = run.cut;
  report.unscored =
      std::count_if(items.begin(), items.end(), [](const auto& item) { return !item.scored(); });
  report.metrics = metrics_of(task, items);
  report.floors = floors_of(run);
  const std::string paired_metric = paired_metric_of(task, items);
  report.items = report_items(run, items, paired_metric);
  if (reference == nullptr) return report;
  const auto reference_items = score_items(*reference, reference, run_code);
  TaskReport other = report;
  other.items = report_items(*reference, reference_items, paired_metric);
  report.reference = compare_reports(report, other, seed);
  if (!report.reference) return report;
  report.reference->paired_metric = paired_metric;
  report.reference->same_text = share_of_same_texts(run, *reference);
  compare_others(*report.reference, items, reference_items, seed);
  return report;
}

}  // namespace crumb::eval

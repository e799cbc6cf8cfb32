#include "bench/eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "models/errors.h"

namespace crumb::eval {
namespace {

std::size_t largest(const Question& question, std::span<const Likelihood> all, bool by_byte) {
  std::size_t best = 0;
  double best_value = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double bytes = static_cast<double>(std::max<int64_t>(question.choices[i].bytes, 1));
    const double value = by_byte ? all[i].log_p / bytes : all[i].log_p;
    if (i > 0 && !(value > best_value)) continue;
    best = i;
    best_value = value;
  }
  return best;
}

ItemScore score_choice(const Task& task, const TaskRun& run, std::size_t i) {
  const Question question = task.question(run.records[i], run.fewshot);
  const auto& all = run.results[i].choices;
  if (all.size() != question.choices.size())
    throw Error(ExitCode::kInternal, "kept answers do not fit the question " + run.results[i].id);
  const bool choose = all.size() > 1;
  return {task.score_choice(run.records[i], question, all),
          choose ? static_cast<int64_t>(likeliest(question, all)) : -1};
}

ItemScore score_text(const TaskRun& run, std::size_t i) {
  const Likelihood& window = run.results[i].choices.at(0);
  return {{{"nll", -window.log_p, static_cast<double>(window.tokens)}}, -1};
}

ItemScore score_answers(const Task& task, const TaskRun& run, const TaskRun* reference,
                        bool run_code, std::size_t i) {
  const auto& answers = run.results[i].answers;
  ScoreContext context;
  context.run_code = run_code;
  if (reference != nullptr) context.reference = reference->results[i].answers;
  ItemScore item{task.score_answer(run.records[i], answers, context), -1};
  if (!item.scored()) return item;
  const auto turns = static_cast<double>(answers.size());
  double loops = 0, limits = 0, tokens = 0;
  for (const Answer& answer : answers) {
    loops += looped(answer.text) ? 1 : 0;
    limits += answer.reason == FinishReason::kStop ? 0 : 1;
    tokens += static_cast<double>(answer.tokens);
  }
  item.scores.push_back({"looped", loops, turns});
  item.scores.push_back({"at_limit", limits, turns});
  item.scores.push_back({"tokens", tokens, turns});
  return item;
}

struct Part {
  double value, weight;
};

Metric ratio(const std::string& name, std::span<const Part> parts) {
  double value = 0, weight = 0;
  for (const Part& part : parts) {
    value += part.value;
    weight += part.weight;
  }
  const double r = value / weight;
  double squares = 0;
  for (const Part& part : parts)
    squares += (part.value - r * part.weight) * (part.value - r * part.weight);
  const auto n = static_cast<double>(parts.size());
  const double error = parts.size() > 1 ? std::sqrt(n / (n - 1) * squares) / weight : 0;
  return {name, r, error, weight, false};
}

}  // namespace

const Metric* find(const Metrics& metrics, std::string_view name) {
  const auto found = std::find_if(metrics.begin(), metrics.end(),
                                  [&](const Metric& metric) { return metric.name == name; });
  return found == metrics.end() ? nullptr : &*found;
}

std::size_t likeliest(const Question& question, std::span<const Likelihood> all) {
  return largest(question, all, false);
}
std::size_t likeliest_by_byte(const Question& question, std::span<const Likelihood> all) {
  return largest(question, all, true);
}

std::vector<ItemScore> score_items(const TaskRun& run, const TaskRun* reference, bool run_code) {
  const Task& task = *run.task;
  if (reference != nullptr && reference->results.size() != run.results.size())
    throw Error(ExitCode::kInternal,
                "the two runs of " + std::string(task.name) + " do not have the same items");
  std::vector<ItemScore> items;
  for (std::size_t i = 0; i < run.results.size(); ++i) switch (task.kind) {
      case TaskKind::kChoice:
        items.push_back(score_choice(task, run, i));
        break;
      case TaskKind::kText:
        items.push_back(score_text(run, i));
        break;
      case TaskKind::kGenerate:
        items.push_back(score_answers(task, run, reference, run_code, i));
        break;
    }
  if (task.across != nullptr) task.across(run.records, items);
  return items;
}

Metrics metrics_of(const Task& task, std::span<const ItemScore> items) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<Part>> parts;
  for (const ItemScore& item : items)
    for (const Score& score : item.scores) {
      auto& list = parts[score.name];
      if (list.empty()) order.push_back(score.name);
      list.push_back({score.value, score.weight});
    }
  Metrics metrics;
  for (const std::string& name : order) {
    const auto& list = parts[name];
    if (std::any_of(list.begin(), list.end(), [](const Part& part) { return part.weight > 0; }))
      metrics.push_back(ratio(name, list));
  }
  if (task.derive != nullptr) task.derive(metrics);
  return metrics;
}

ItemValue value_of(const ItemScore& item, std::string_view metric) {
  for (const Score& score : item.scores)
    if (score.name == metric && score.weight > 0) return {true, score.value / score.weight};
  return {};
}

}  // namespace crumb::eval

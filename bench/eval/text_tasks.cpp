// Perplexity of a text as a task: an item is a window.
#include <algorithm>
#include <cmath>

#include "bench/eval/task.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

void add_perplexity(Metrics& metrics) {
  if (const Metric* nll = find(metrics, "nll"))
    metrics.push_back(
        {"ppl", std::exp(nll->value), std::exp(nll->value) * nll->error, nll->weight, true});
}

const Task kTextTasks[] = {
    {.name = "wikitext2",
     .dimension = "language",
     .kind = TaskKind::kText,
     .data = "wikitext2/test_half_a.raw",
     .metric = "ppl",
     .protocol = "perplexity, windows without overlap, second half of each scored",
     .derive = add_perplexity},
    {.name = "c4",
     .dimension = "language",
     .kind = TaskKind::kText,
     .data = "c4/dev.jsonl",
     .metric = "ppl",
     .protocol = "as wikitext2, over the records' texts joined by blank lines",
     .derive = add_perplexity},
};

}  // namespace

std::span<const Task> text_tasks() { return kTextTasks; }

std::vector<const Task*> all_tasks() {
  std::vector<const Task*> all;
  for (const auto tasks : {choice_tasks(), text_tasks(), generative_tasks()})
    for (const Task& task : tasks) all.push_back(&task);
  return all;
}

const Task& find_task(std::string_view name) {
  const auto all = all_tasks();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Task* task) { return task->name == name; });
  if (found != all.end()) return **found;
  std::string names;
  for (const Task* task : all) names += (names.empty() ? "" : ", ") + std::string(task->name);
  throw Error(ExitCode::kUsage,
              "unknown task '" + std::string(name) + "' (expected one of " + names + ")");
}

}  // namespace crumb::eval

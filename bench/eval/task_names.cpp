// Tasks and suites by name.
#include <algorithm>

#include "bench/eval/task.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

struct Suite {
  std::string_view name;
  std::vector<std::string_view> tasks;  // those of the table that exist
};

// ceq: the benchmarks of arXiv 2402.16775 (Findings of ACL 2024), with IFEval beside its
// FollowBench. quick: where a 135M model is
// above chance, so that quantization shows.
const Suite kSuites[] = {
    {"ceq",
     {"mmlu", "ceval", "gsm8k", "snli", "flores", "cnn_dailymail", "xsum", "followbench", "ifeval",
      "truthfulqa_mc1", "truthfulqa_mc2", "bbq", "wikitext2", "c4"}},
    {"quick", {"wikitext2", "arc_easy", "hellaswag", "piqa", "lambada_openai", "bbq"}},
};

std::vector<const Task*> of_kind(TaskKind kind) {
  auto tasks = all_tasks();
  std::erase_if(tasks, [&](const Task* task) { return task->kind != kind; });
  return tasks;
}

}  // namespace

std::vector<const Task*> all_tasks() {
  std::vector<const Task*> all;
  for (const auto tasks : {choice_tasks(), text_tasks(), generative_tasks(), user_data_tasks()})
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
  throw Error(ExitCode::kUsage, "unknown task '" + std::string(name) + "' (expected one of " +
                                    names + ", or a suite: " + suite_names() + ")");
}

std::vector<const Task*> tasks_named(std::string_view name) {
  if (name == "all") return all_tasks();
  if (name == "choice") return of_kind(TaskKind::kChoice);
  if (name == "language") return of_kind(TaskKind::kText);
  if (name == "generation") return of_kind(TaskKind::kGenerate);
  for (const Suite& suite : kSuites) {
    if (suite.name != name) continue;
    auto tasks = all_tasks();
    std::erase_if(tasks, [&](const Task* task) {
      return std::find(suite.tasks.begin(), suite.tasks.end(), task->name) == suite.tasks.end();
    });
    return tasks;
  }
  return {&find_task(name)};
}

std::string suite_names() {
  std::string names = "all, choice, language, generation";
  for (const Suite& suite : kSuites) names += ", " + std::string(suite.name);
  return names;
}

}  // namespace crumb::eval

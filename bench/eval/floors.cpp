#include "bench/eval/floors.h"

#include <algorithm>

namespace crumb::eval {
namespace {

std::size_t extreme(const Question& question, bool longest) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < question.choices.size(); ++i) {
    const int64_t a = question.choices[i].bytes, b = question.choices[best].bytes;
    if (longest ? a > b : a < b) best = i;
  }
  return best;
}

}  // namespace

std::vector<Floor> floors_of(const TaskRun& run) {
  const Task& task = *run.task;
  if (task.floor != nullptr) return {{std::string(task.floor_name), task.floor(run.records)}};
  if (task.kind != TaskKind::kChoice || run.records.empty()) return {};
  double random = 0, longest = 0, shortest = 0;
  std::vector<double> position;
  bool lengths_differ = false;
  for (const Record& record : run.records) {
    const Question question = task.question(record, run.fewshot);
    if (question.choices.size() < 2) return {};
    const auto right = std::count(question.right.begin(), question.right.end(), true);
    random += static_cast<double>(right) / static_cast<double>(question.right.size());
    const std::size_t most = extreme(question, true), least = extreme(question, false);
    lengths_differ |= question.choices[most].bytes != question.choices[least].bytes;
    longest += question.right[most] ? 1 : 0;
    shortest += question.right[least] ? 1 : 0;
    position.resize(std::max(position.size(), question.right.size()));
    for (std::size_t i = 0; i < question.right.size(); ++i)
      position[i] += question.right[i] ? 1 : 0;
  }
  const auto n = static_cast<double>(run.records.size());
  const auto best = std::max_element(position.begin(), position.end());
  std::vector<Floor> floors{{"random", random / n}};
  if (lengths_differ) {
    floors.push_back({"longest", longest / n});
    floors.push_back({"shortest", shortest / n});
  }
  floors.push_back({"always " + std::to_string(best - position.begin() + 1), *best / n});
  return floors;
}

Floor highest(std::span<const Floor> floors) {
  Floor best;
  for (const Floor& floor : floors)
    if (best.name.empty() || floor.value > best.value ||
        (floor.value == best.value && floor.name < best.name))
      best = floor;
  return best;
}

}  // namespace crumb::eval

// From answers to scores of items and metrics of a task.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "bench/eval/run_task.h"
#include "bench/eval/task.h"

namespace crumb::eval {

// One a result, in order. `reference` is the same task by the reference model, or null; its items
// must be the same. An item without scores could not be scored here (Task::score_answer).
std::vector<ItemScore> score_items(const TaskRun& run, const TaskRun* reference, bool run_code);

// sum(value) / sum(weight) of every name, in order of first appearance, then what Task::derive
// adds. A name whose weights sum to 0 is left out. Standard error of a ratio R over the n items
// that give the name: sqrt(n / (n - 1) sum((v - R w)^2)) / sum(w), items taken as independent; 0
// for n = 1.
Metrics metrics_of(const Task& task, std::span<const ItemScore> items);

}  // namespace crumb::eval

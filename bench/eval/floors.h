// What strategies that need no model reach, to stand beside a score.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "bench/eval/run_task.h"

namespace crumb::eval {

struct Floor {
  std::string name;
  double value = 0;
};

// Multiple choice (at least two choices), of an accuracy: random (mean share of right choices),
// longest and shortest (by bytes, the first of equals), position (the place that is right most
// often, which one is in the name: "always 2" counts from 1). For winogrande-like questions,
// whose choices are all of one length, longest and shortest are left out. Other tasks: Task::floor.
std::vector<Floor> floors_of(const TaskRun& run);

// The highest, of equals the first name in the alphabet; value 0 and an empty name for none.
Floor highest(std::span<const Floor> floors);

}  // namespace crumb::eval

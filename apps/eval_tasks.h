// `crumb eval TASK`, `crumb eval suite`: benchmarks.
#pragma once
#include <string>
#include <vector>

#include "apps/verbs.h"

namespace crumb::apps {

// One task, or the tasks of a suite; `name` is a task's or "suite". Returns the exit code.
int eval_tasks(Context& context, const std::string& name);

// "  arc_easy   knowledge   0-shot .." a line a task, for the help text.
std::string task_list();

}  // namespace crumb::apps

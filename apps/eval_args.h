// Options that `crumb eval TASK`, `suite` and `compare` share, and running tasks with them.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "apps/args.h"
#include "apps/model_args.h"
#include "apps/signals.h"
#include "bench/eval/report.h"

namespace crumb::apps {

struct TaskArgs {
  ModelArgs model;
  std::string data, cache, reference;
  int64_t limit = 0, max_tokens = 0, window = 512, side_by_side = 16;
  uint64_t seed = 1;
  bool no_cache = false, run_code = false, efficiency = false, kl = false, chat = false,
       quiet = false;
};
// --data --cache --no-cache --limit --seed --window --max-tokens --side-by-side --reference
// --run-code
// --efficiency --kl --chat -q, and those of add_model and --kv.
void add_tasks(Args& args, TaskArgs& given);

// What was given, else `shared/data` beside the source folder of this binary.
// Throws Error(kUsage) saying where it looked.
std::string data_folder(const TaskArgs& given);
// What was given, else $XDG_CACHE_HOME/crumb/eval or ~/.cache/crumb/eval; empty with
// --no-cache or if there is no home.
std::string cache_folder(const TaskArgs& given);

// Tasks of a list of tasks and suites with commas, each once. Throws Error(kUsage).
std::vector<const eval::Task*> tasks_of(const std::string& list);

// Runs the tasks on the model of `given` (and its reference). A task whose data file is absent is
// named in Report::not_scored; if `required`, that is an Error.
eval::Report run_tasks(TaskArgs& given, const std::vector<const eval::Task*>& tasks, bool required,
                       Signals& signals);

}  // namespace crumb::apps

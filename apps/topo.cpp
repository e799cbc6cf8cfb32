#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "engine/threads/topology.h"

namespace crumb::apps {

int topo(Context& context) {
  ModelArgs model;
  bool json = false;
  Args args(context, "Which cores would be used, and why.");
  args.integer("-t,--threads", model.threads, 1, 1024, "threads wanted");
  args.flag("--no-pin", model.no_pin, "do not pin");
  args.flag("--json", json, "one JSON object");
  if (!args.parse()) return 0;
  const threads::Plan plan = threads::make_plan(thread_count(model), !model.no_pin);
  if (json) {
    write_stdout(to_text({{"schema", "crumb.topo/1"},
                          {"threads", plan.threads},
                          {"pus", plan.pus},
                          {"cores", plan.cores},
                          {"allowed_pus", plan.allowed_pus},
                          {"numa_nodes", plan.numa_nodes},
                          {"cgroup_cpus", plan.cgroup_cpus},
                          {"reasons", plan.reasons}}));
    return 0;
  }
  for (const auto& reason : plan.reasons) put("{}\n", reason);
  put("pinned to: {}\n",
      plan.pus.empty() ? "nothing" : fmt::format("{}", fmt::join(plan.pus, ", ")));
  return 0;
}

}  // namespace crumb::apps

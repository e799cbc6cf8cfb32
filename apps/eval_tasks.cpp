#include "apps/eval_tasks.h"

#include <fmt/format.h>

#include "apps/eval_args.h"
#include "apps/eval_report.h"
#include "apps/output.h"
#include "bench/eval/floors.h"
#include "models/errors.h"
#include "models/file_writer.h"

namespace crumb::apps {
namespace {

struct SuiteArgs {
  TaskArgs tasks;
  std::string names, output;
  bool json = false;
};

}  // namespace

int eval_tasks(Context& context, const std::string& name) {
  const bool suite = name == "suite";
  SuiteArgs given;
  Args args(context, suite ? "Benchmarks: scores, and the difference from a reference."
                           : std::string(eval::find_task(name).protocol));
  add_tasks(args, given.tasks);
  if (suite) {
    given.names = "all";
    args.text("--tasks", given.names, "LIST",
              "tasks and suites, with commas (default all): " + eval::suite_names());
  }
  args.text("-o,--output", given.output, "FILE",
            "the whole report with every item, for `crumb eval compare`");
  args.flag("--json", given.json, "one JSON object on stdout");
  args.example(suite ? "crumb eval suite -m model.crumb --reference model.gguf --limit 200"
                     : "crumb eval " + name + " -m model.crumb --reference model.gguf");
  if (!args.parse()) return 0;
  const auto tasks = tasks_of(suite ? given.names : name);
  const eval::Report report = run_tasks(given.tasks, tasks, !suite, context.signals);
  if (!given.output.empty()) models::write_file(given.output, eval::to_json(report, true));
  write_stdout(given.json ? eval::to_json(report, false) : report_text(report));
  return 0;
}

std::string task_list() {
  std::string list;
  for (const eval::Task* task : eval::all_tasks())
    list += fmt::format("  {:<16} {}\n", task->name, task->dimension);
  return list;
}

}  // namespace crumb::apps

#include "apps/eval_args.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "apps/eval_efficiency.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "bench/eval/fingerprint.h"
#include "bench/eval/perplexity.h"
#include "models/content_hash.h"
#include "models/errors.h"
#include "models/mapped_file.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> default_data_folders() {
  std::error_code error;
  const fs::path binary = fs::read_symlink("/proc/self/exe", error);
  if (error) return {};
  // SOURCE/build/release/crumb: SOURCE/../shared/data.
  const fs::path source = binary.parent_path().parent_path().parent_path();
  return {(source.parent_path() / "shared/data").string()};
}

std::string hash_of_file(const std::string& path) {
  return models::content_hash(models::MappedFile(path).bytes());
}

bool has_data(const eval::Task& task, const std::string& data) {
  std::error_code error;
  return fs::exists(fs::path(data) / task.data, error) &&
         (task.fewshot.empty() || fs::exists(fs::path(data) / task.fewshot, error));
}

// One model over all tasks.
struct ModelRun {
  eval::ModelDescription description;
  std::string kv;
  std::vector<eval::TaskRun> runs;
};

std::string cost_of(const eval::TaskRun& run) {
  if (run.asked == 0) return "all items kept from before";
  return fmt::format("{} of {} items asked, {} tokens run, {} found in the cache, {:.0f} tokens/s",
                     run.asked, run.results.size(), run.tokens_run, run.tokens_reused,
                     static_cast<double>(run.tokens_run) / std::max(run.seconds, 1e-9));
}

ModelRun run_model(const std::string& label, const TaskArgs& given, ModelArgs model,
                   const eval::RunOptions& shared, const std::vector<const eval::Task*>& tasks,
                   Signals& signals) {
  return with_progress(!given.quiet, signals, [&](const ProgressFn& progress) {
    const auto engine = load_engine(model);
    ModelRun result;
    result.kv = model.kv;
    result.description = eval::describe(*engine, hash_of_file(engine->info().path));
    eval::RunOptions options = shared;
    options.kv = kv_type(model.kv);
    options.model_key = result.description.hash + " " + eval::fingerprint(*engine, options.kv);
    options.label = label;
    if (!given.quiet)
      note("{}{} · {} · KV {} · {} · {} threads\n", label.empty() ? "" : label + ": ",
           one_line(engine->info().name), engine->info().weights, model.kv, engine->backend().name,
           engine->thread_plan().threads);
    for (const eval::Task* task : tasks) {
      result.runs.push_back(eval::run_task(engine, *task, options, progress));
      const eval::TaskRun& run = result.runs.back();
      if (!given.quiet) note("{}: {}\n", task->name, cost_of(run));
      for (const auto& notice : run.notices) note("crumb: warning: {}\n", one_line(notice));
      if (run.dropped_bytes > 0)
        note("crumb: warning: {}: {} bytes dropped that the vocabulary does not have\n", task->name,
             run.dropped_bytes);
      if (run.cut > 0)
        note("crumb: warning: {}: {} contexts cut at the front to fit the model\n", task->name,
             run.cut);
    }
    return result;
  });
}

// KL from the reference over the windows of WikiText-2, as `crumb eval kl`.
void add_divergence(eval::Report& report, const TaskArgs& given, const eval::RunOptions& options,
                    Signals& signals) {
  if (given.reference.empty())
    throw Error(ExitCode::kUsage, "--kl needs a model to compare with (--reference FILE)");
  const std::string text = eval::task_text(eval::find_task("wikitext2"), options);
  const eval::KlResult kl = with_progress(!given.quiet, signals, [&](const ProgressFn& progress) {
    ModelArgs model = given.model;
    const auto base = Engine::load(given.reference, load_options(model));
    const auto engine = load_engine(model);
    eval::WindowOptions window;
    window.window = options.window;
    window.limit = options.limit;
    window.kv = kv_type(model.kv);
    return eval::kl_divergence(*base, *engine, text, window, progress);
  });
  report.mean_kld = kl.mean_kld;
  report.kld_stderr = kl.stderr_kld;
  report.same_top = kl.top1;
}

}  // namespace

void add_tasks(Args& args, TaskArgs& given) {
  add_model(args, given.model);
  args.choice("--kv", given.model.kv, {"i8", "f16", "f32"},
              "type of cached keys and values (default i8; f32 for float weights)");
  args.text("--data", given.data, "DIR",
            "folder of the benchmarks' files (default: shared/data beside the source)");
  args.integer("--limit", given.limit, 0, INT64_MAX, "only the first N items (or windows)");
  args.text("--reference", given.reference, "FILE",
            "compare item by item with this model, usually the source");
  args.flag("--chat", given.chat,
            "ask multiple choice through the chat template (default: as plain text)");
  args.integer("--seed", given.seed, 0, INT64_MAX, "seed of the bootstrap (default 1)");
  args.integer("--window", given.window, 2, 1 << 24,
               "tokens of a window of the perplexity tasks (default 512)");
  args.integer("--max-tokens", given.max_tokens, 0, 1 << 24,
               "tokens of a generated answer at most (default: the task's)");
  args.integer("--side-by-side", given.side_by_side, 1, 128,
               "answers written at a time (default 16): more are faster and take more memory");
  args.flag("--run-code", given.run_code,
            "run the programs that the model writes (for tasks scored so)");
  args.flag("--efficiency", given.efficiency, "measure speeds, memory and energy too");
  args.flag("--kl", given.kl, "with --reference: mean divergence over WikiText-2's windows too");
  args.text("--cache", given.cache, "DIR",
            "keep answers there, and go on after a stop (default ~/.cache/crumb/eval)");
  args.flag("--no-cache", given.no_cache, "keep nothing");
  args.flag("-q,--quiet", given.quiet, "no progress");
}

std::string data_folder(const TaskArgs& given) {
  if (!given.data.empty()) return given.data;
  const auto folders = default_data_folders();
  std::error_code error;
  for (const auto& folder : folders)
    if (fs::is_directory(folder, error)) return folder;
  throw Error(ExitCode::kUsage,
              fmt::format("no folder of benchmark data (looked in {})", fmt::join(folders, ", ")),
              "pass --data DIR or set CRUMB_DATA; bench/eval/README.md says what is in it");
}

std::string cache_folder(const TaskArgs& given) {
  if (given.no_cache) return {};
  if (!given.cache.empty()) return given.cache;
  if (const auto cache = environment("XDG_CACHE_HOME"))
    return (fs::path(*cache) / "crumb/eval").string();
  if (const auto home = environment("HOME"))
    return (fs::path(*home) / ".cache/crumb/eval").string();
  return {};
}

std::vector<const eval::Task*> tasks_of(const std::string& list) {
  std::vector<const eval::Task*> tasks;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t comma = std::min(list.find(',', at), list.size());
    for (const eval::Task* task : eval::tasks_named(list.substr(at, comma - at)))
      if (std::find(tasks.begin(), tasks.end(), task) == tasks.end()) tasks.push_back(task);
    at = comma + 1;
  }
  return tasks;
}

eval::Report run_tasks(TaskArgs& given, const std::vector<const eval::Task*>& tasks, bool required,
                       Signals& signals) {
  eval::RunOptions options;
  options.data = data_folder(given);
  options.cache = cache_folder(given);
  options.limit = given.limit;
  options.max_tokens = given.max_tokens;
  options.window = given.window;
  options.side_by_side = given.side_by_side;
  options.chat = given.chat;
  eval::Report report;
  std::vector<const eval::Task*> present;
  for (const eval::Task* task : tasks) {
    if (required || has_data(*task, options.data))
      present.push_back(task);
    else
      report.not_scored.push_back(fmt::format("{}: no data ({})", task->name,
                                              (fs::path(options.data) / task->data).string()));
  }
  // First, while nothing else is in memory.
  if (given.efficiency) report.efficiency = measure_efficiency(given.model, given.quiet, signals);
  std::optional<ModelRun> reference;
  if (!given.reference.empty()) {
    ModelArgs other = given.model;
    other.path = given.reference;
    other.kv.clear();
    reference = run_model("reference", given, other, options, present, signals);
    report.reference = reference->description;
  }
  if (given.kl) add_divergence(report, given, options, signals);
  const ModelRun model = run_model("", given, given.model, options, present, signals);
  report.model = model.description;
  report.kv = model.kv;
  report.chat = given.chat;
  report.limit = given.limit;
  report.window = given.window;
  report.max_tokens = given.max_tokens;
  report.seed = given.seed;
  for (std::size_t i = 0; i < present.size(); ++i) {
    report.tasks.push_back(eval::report_task(
        model.runs[i], reference ? &reference->runs[i] : nullptr, given.run_code, given.seed));
    const eval::TaskReport& task = report.tasks.back();
    if (task.unscored > 0)
      report.not_scored.push_back(fmt::format("{}: {} of {} items{}", task.name, task.unscored,
                                              task.n,
                                              given.run_code ? "" : " (needs --run-code?)"));
  }
  return report;
}

}  // namespace crumb::apps

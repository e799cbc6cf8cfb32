#include <functional>
#include <string>
#include <vector>

#include "apps/eval_compare.h"
#include "apps/eval_tasks.h"
#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "apps/verbs.h"
#include "bench/eval/perplexity.h"
#include "bench/eval/task.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

struct EvalArgs {
  ModelArgs model;
  std::string base, text, input, output;
  int64_t window = 512, limit = 0, top = 20;
  bool all_positions = false, json = false, quiet = false;
};

void add_common(Args& args, EvalArgs& given) {
  add_model(args, given.model);
  args.choice("--kv", given.model.kv, {"i8", "f16", "f32"},
              "type of cached keys and values (default i8; f32 for float weights)");
  args.flag("-q,--quiet", given.quiet, "no progress");
}

void add_windows(Args& args, EvalArgs& given) {
  args.text("-f,--file", given.text, "TEXT", "the text to read");
  args.integer("--window", given.window, 2, 1 << 24, "tokens of a window (default 512)");
  args.flag("--all-positions", given.all_positions, "score the whole window, not its second half");
  args.integer("--limit", given.limit, 0, INT64_MAX, "only the first N windows");
  args.flag("--json", given.json, "one JSON object on stdout");
}

void require(const std::string& value, const char* option) {
  if (value.empty()) throw Error(ExitCode::kUsage, fmt::format("{} is required", option));
}

eval::WindowOptions window_options(const EvalArgs& given) {
  eval::WindowOptions options;
  options.window = given.window;
  options.second_half = !given.all_positions;
  options.limit = given.limit;
  options.kv = kv_type(given.model.kv);
  return options;
}

template <class Result>
void print_json(const Result& result) {
  const std::string json = eval::to_json(result);
  write_stdout(json.ends_with('\n') ? json : json + "\n");
}

std::string what_was_run(const Engine& engine, const EvalArgs& given) {
  return fmt::format("{} · {} · window {}, {} scored · KV {} · {} · {} threads",
                     one_line(engine.info().name), engine.info().weights, given.window,
                     given.all_positions ? "all positions" : "second half", given.model.kv,
                     engine.backend().name, engine.thread_plan().threads);
}

int ppl(Context& context) {
  EvalArgs given;
  Args args(context, "Perplexity over windows of a text.");
  add_common(args, given);
  add_windows(args, given);
  args.example("crumb eval ppl -m model.crumb -f wiki.txt");
  if (!args.parse()) return 0;
  require(given.text, "-f TEXT");
  const std::string text = read_text(given.text);
  const auto result = with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    const auto engine = load_engine(given.model);
    if (!given.quiet) note("{}\n", what_was_run(*engine, given));
    return eval::perplexity(*engine, text, window_options(given), progress);
  });
  if (given.json) {
    print_json(result);
    return 0;
  }
  put("ppl {:.4f} · nll {:.5f} ± {:.5f} nats · {} tokens in {} windows\n", result.ppl, result.nll,
      result.stderr_nll, result.tokens, result.windows);
  if (result.dropped_bytes > 0) note("crumb: warning: {} bytes dropped\n", result.dropped_bytes);
  return 0;
}

int kl(Context& context) {
  EvalArgs given;
  Args args(context, "Divergence of a model from the one it was made of, over windows of a text.");
  args.text("--base", given.base, "FILE", "the reference, usually the full-precision source");
  add_common(args, given);
  add_windows(args, given);
  args.example("crumb eval kl --base model.gguf -m model.crumb -f wiki.txt");
  if (!args.parse()) return 0;
  require(given.text, "-f TEXT");
  require(given.base, "--base FILE");
  const std::string text = read_text(given.text);
  const auto result = with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    const auto base = Engine::load(given.base, load_options(given.model));
    const auto engine = load_engine(given.model);
    if (!given.quiet)
      note("base: {} · {}\nmodel: {}\n", one_line(base->info().name), base->info().weights,
           what_was_run(*engine, given));
    return eval::kl_divergence(*base, *engine, text, window_options(given), progress);
  });
  if (given.json) {
    print_json(result);
    return 0;
  }
  put("mean KLD   {:.6f} ± {:.6f} nats · median {:.6f} · 99 % {:.4f} · max {:.4f}\n",
      result.mean_kld, result.stderr_kld, result.median_kld, result.kld_p99, result.kld_max);
  put("same top-1 {:.2f} %\n", result.top1 * 100);
  put("ppl        {:.4f} · base {:.4f} · ratio {:.5f}\n", result.ppl, result.ppl_base,
      result.ppl_ratio);
  put("tokens     {} in {} windows\n", result.tokens, result.windows);
  return 0;
}

// What `logits` and `logprobs` share: JSONL in, JSONL out.
bool parse_lines(Context& context, EvalArgs& given, const char* summary, bool top) {
  Args args(context, summary);
  add_common(args, given);
  args.text("--input", given.input, "FILE", "JSONL: {\"id\", \"ids\"} a line");
  args.text("-o,--output", given.output, "FILE", "JSONL to write");
  if (top) args.integer("--top", given.top, 1, 1 << 20, "logits a position (default 20)");
  if (!args.parse()) return false;
  require(given.input, "--input FILE");
  require(given.output, "-o FILE");
  return true;
}

int logits(Context& context) {
  EvalArgs given;
  if (!parse_lines(context, given, "The largest logits at every position, for anybody's check.",
                   true))
    return 0;
  with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    const auto engine = load_engine(given.model);
    eval::write_logits(*engine, given.input, given.output, static_cast<int>(given.top),
                       kv_type(given.model.kv), progress);
  });
  if (!given.quiet) note("wrote {}\n", given.output);
  return 0;
}

int logprobs(Context& context) {
  EvalArgs given;
  if (!parse_lines(context, given, "log P of every token after those before it.", false)) return 0;
  with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    const auto engine = load_engine(given.model);
    eval::write_log_probabilities(*engine, given.input, given.output, kv_type(given.model.kv),
                                  progress);
  });
  if (!given.quiet) note("wrote {}\n", given.output);
  return 0;
}

struct Measure {
  std::string name, summary;
  std::function<int(Context&)> run;
};

std::vector<Measure> measures() {
  std::vector<Measure> all = {{"ppl", "perplexity of a text", ppl},
                              {"kl", "divergence from a reference model", kl},
                              {"logits", "raw logits of given token ids", logits},
                              {"logprobs", "log P of given token ids", logprobs},
                              {"suite", "several tasks in one report",
                               [](Context& context) { return eval_tasks(context, "suite"); }},
                              {"compare", "models or reports side by side", eval_compare}};
  for (const eval::Task* task : eval::all_tasks())
    all.push_back({std::string(task->name), "", [task](Context& context) {
                     return eval_tasks(context, std::string(task->name));
                   }});
  return all;
}

std::string usage() {
  std::string list = "Usage: crumb eval MEASURE|TASK [OPTIONS]\n\n";
  for (const auto& measure : measures())
    if (!measure.summary.empty())
      list += fmt::format("  {:<16} {}\n", measure.name, measure.summary);
  return list + "\n" + task_list() + "\ncrumb eval MEASURE --help lists the options.\n";
}

void add_to_table(Context& context) {
  const std::string program = context.program;
  for (const auto& measure : measures()) {
    context.program = program + " " + measure.name;
    measure.run(context);
  }
}

}  // namespace

int eval(Context& context) {
  if (context.table != nullptr) {
    add_to_table(context);
    return 0;
  }
  const std::string name = context.args.empty() ? "" : context.args.front();
  for (const auto& measure : measures()) {
    if (measure.name != name) continue;
    context.program += " " + name;
    context.args.erase(context.args.begin());
    return measure.run(context);
  }
  if (name == "--help" || name == "-h") {
    write_stdout(usage());
    return 0;
  }
  constexpr const char* kExpected = "expected ppl, kl, logits, logprobs, suite, compare or a task";
  throw Error(ExitCode::kUsage,
              name.empty() ? fmt::format("no measure given ({})", kExpected)
                           : fmt::format("unknown measure '{}' ({})", one_line(name), kExpected),
              "crumb eval --help");
}

}  // namespace crumb::apps

#include <algorithm>

#include "apps/bench_latency.h"
#include "apps/bench_report.h"
#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "engine/kv_cache.h"
#include "models/checkpoint.h"
#include "models/errors.h"
#include "models/tensors.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxTokens = 1 << 24;
constexpr int kBandwidthPasses = 7;
constexpr int64_t kLatencyTokens = 64;  // decoded beside a table of latencies, one repetition

struct BenchArgs {
  ModelArgs model;
  std::vector<int64_t> prompts, generates, depths = {0};
  std::vector<std::pair<int64_t, int64_t>> both;
  int64_t repetitions = 5, chunk = 64;
  std::string format = "md";
  bool quiet = false, json = false, profile = false, latency = false, pruned = false;
};

bool parse(Context& context, BenchArgs& given) {
  Args args(context, "Tokens per second of reading a prompt (pp) and generating (tg).");
  const auto list = [&args](const std::string& names, std::vector<int64_t>& values, int64_t low,
                            const std::string& help) {
    args.option(names, "LIST", help, [&values, names, low](const std::string& s) {
      values = parse_list(s, low, kMaxTokens, names);
    });
  };
  add_model(args, given.model);
  args.choice("--kv", given.model.kv, {"i8", "f16", "f32"},
              "type of cached keys and values (default i8; f32 for float weights)");
  list("-p,--n-prompt", given.prompts, 0,
       "prompt lengths: 128,512 or 64-512*2 (default 512; 0: none)");
  list("-n,--n-gen", given.generates, 0, "generated lengths (default 128; 0: none)");
  list("-d,--n-depth", given.depths, 0, "tokens already in the cache (default 0)");
  args.repeated(
      "--prompt-gen", "PP,TG", "prompt and generation together (also -pg), may be repeated",
      [&given](const std::string& s) {
        const auto pair = parse_list(s, 1, kMaxTokens, "--prompt-gen");
        if (pair.size() != 2)
          throw Error(ExitCode::kUsage,
                      fmt::format("invalid value (--prompt-gen: expected PP,TG, found '{}')", s));
        given.both.emplace_back(pair[0], pair[1]);
      });
  args.integer("-r,--repetitions", given.repetitions, 1, 10000,
               "repetitions after one warm-up (default 5)");
  args.integer("-b,--batch-size", given.chunk, 1, 4096, "tokens of one prompt step (default 64)");
  args.choice("-o,--output", given.format, {"md", "json", "csv"}, "format (default md)");
  args.flag("--json", given.json, "the same as -o json");
  args.flag("--profile", given.profile, "where a token's time goes, by phase");
  args.flag(
      "--latency-table", given.latency,
      "JSON instead: what every matrix costs at 2, 3, 4 and 8 bits in decoding, and beside it "
      "this model's token as predicted and as measured");
  args.flag("--pruned", given.pruned,
            "--latency-table: also the sizes that crumb search apq may choose");
  args.flag("-q,--quiet", given.quiet, "no remarks");
  args.example("crumb bench -p 128,512 -n 128 -d 0,4096 -r 7 -o json");
  if (!args.parse()) return false;
  if (given.json) given.format = "json";
  if (given.prompts.empty() && given.both.empty()) given.prompts = {512};
  if (given.generates.empty() && given.both.empty()) given.generates = {128};
  return true;
}

std::vector<BenchTest> tests_of(const BenchArgs& given) {
  std::vector<BenchTest> tests;
  for (const int64_t depth : given.depths) {
    for (const int64_t n : given.prompts)
      if (n > 0) tests.push_back({n, 0, depth});
    for (const int64_t n : given.generates)
      if (n > 0) tests.push_back({0, n, depth});
    for (const auto& [prompt, generate] : given.both) tests.push_back({prompt, generate, depth});
  }
  if (tests.empty()) throw Error(ExitCode::kUsage, "nothing to measure (all lengths are 0)");
  return tests;
}

// Widths of the blocks' matrices, in the order of the rows, and the group all have; no widths for a
// model that has floats or bands.
struct Form {
  std::vector<int> bits;
  int64_t group = 0;
};
Form form_of(const Engine& engine) {
  Form form;
  if (!engine.info().packed) return form;
  const auto checkpoint = models::Checkpoint::open(engine.info().path);
  for (const models::TensorInfo& t : models::tensor_table(engine.config())) {
    if (t.role != models::TensorRole::kLinear) continue;
    const models::MatrixView view = checkpoint.matrix(t.name);
    if (view.bands.size() != 1) return {};
    form.bits.push_back(view.bands[0].bits);
    if (view.bands[0].group != view.bands[0].cols) form.group = view.bands[0].group;
  }
  return form;
}

// The table, and the model's own token: its matrices by the table and all else as measured, beside
// the whole as measured.
int latency_table(Context& context, const BenchArgs& given, const Engine& engine) {
  const Form form = form_of(engine);
  SessionOptions options = session_options(given.model);
  options.context = kLatencyTokens + given.depths.front();
  const auto session = engine.make_session(options);
  const auto passes = static_cast<int>(given.repetitions * 4);
  const auto rows = measure_latency(engine.config(), form.group, engine.thread_plan(),
                                    engine.backend(), passes, context.signals);
  Json json = latency_json(rows);
  json["cpu"] = cpu_name();
  json["isa"] = engine.backend().name;
  json["threads"] = engine.thread_plan().threads;
  json["group"] = form.group;
  json["passes"] = passes;
  json["shapes"] = shape_latencies(engine.config(), rows, given.pruned, form.group,
                                   engine.thread_plan(), engine.backend(), passes, context.signals);
  if (!form.bits.empty()) {
    const int64_t depth = given.depths.front();
    const BenchRow token = measure(*session, engine, {0, kLatencyTokens, depth},
                                   static_cast<int>(given.repetitions), true, context.signals);
    const double measured = quantile(token.token_ns, 0.5);
    double rest = 0;
    for (std::size_t i = 0; i < token.phase_ns.size(); ++i)
      if (static_cast<Phase>(i) != Phase::kMatmul) rest += token.phase_ns[i];
    const double predicted = predicted_ns(rows, form.bits) + rest;
    const auto phase = [&](Phase p) { return token.phase_ns[static_cast<std::size_t>(p)]; };
    const auto layers = static_cast<double>(engine.config().layers);
    const auto heads = static_cast<double>(kv_heads_of_all(engine.config()));
    json["model"] = {{"path", engine.info().path},
                     {"rest_ns", rest},
                     {"head_ns", phase(Phase::kHead)},
                     {"layer_ns", (rest - phase(Phase::kHead) - phase(Phase::kAttention)) / layers},
                     {"attention_ns", phase(Phase::kAttention) / heads},
                     {"context", static_cast<double>(depth) + 0.5 * (kLatencyTokens + 1)},
                     {"predicted_ns", predicted},
                     {"measured_ns", measured},
                     {"ratio", predicted / measured}};
    if (!given.quiet)
      note("{}: {:.3f} ms a token predicted, {:.3f} measured\n", engine.info().path,
           predicted * 1e-6, measured * 1e-6);
  }
  write_stdout(to_text(json));
  return 0;
}

}  // namespace

int bench(Context& context) {
  BenchArgs given;
  if (!parse(context, given)) return 0;
  const auto tests = tests_of(given);
  int64_t longest = 0;
  for (const auto& test : tests)
    longest = std::max(longest, test.depth + test.prompt + test.generate);
  context.signals.watch();
  const double load = load_average();
  const auto engine = load_engine(given.model);
  if (given.latency) return latency_table(context, given, *engine);
  SessionOptions options = session_options(given.model);
  options.context = longest;
  options.chunk = given.chunk;
  const auto session = engine->make_session(options);
  BenchSetup setup{*engine, given.model.kv, longest,        given.chunk, given.model.mmap,
                   {},      cpu_name(),     cpu_governor(), load};
  // Twice the weights, so that what a cache keeps of the buffer does not count.
  const ModelInfo& info = engine->info();
  setup.bandwidth = measure_bandwidth(engine->thread_plan(),
                                      2 * (info.linear_bytes_per_token + info.head_bytes_per_token),
                                      kBandwidthPasses);
  std::vector<BenchRow> rows;
  for (const auto& test : tests) {
    if (!given.quiet) note("{} ({}/{})\n", name_of(test), rows.size() + 1, tests.size());
    rows.push_back(measure(*session, *engine, test, static_cast<int>(given.repetitions),
                           given.profile, context.signals));
  }
  if (given.format == "json") {
    Json array = Json::array();
    for (const auto& row : rows) array.push_back(to_json(setup, row));
    write_stdout(to_text(array));
  } else {
    write_stdout(given.format == "csv" ? csv(setup, rows) : markdown(setup, rows));
  }
  return 0;
}

}  // namespace crumb::apps

#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "engine/memory.h"
#include "models/errors.h"
#include "models/source.h"
#include "quant/need.h"
#include "quant/plan.h"
#include "quant/presets.h"

namespace crumb::apps {
namespace {

struct EstimateArgs {
  std::string path;
  ModelArgs model;
  int64_t slots = 1, chunk = 64;
  std::optional<int> bits, embed_bits;
  std::string group, embed_group, grid = "asym", preset;
  double target_bpw = 0;
  bool json = false;
};

bool parse(Context& context, EstimateArgs& given) {
  Args args(context, "How much memory a model would take, before anything is loaded.");
  args.positional("FILE", given.path, true, ".crumb or .gguf");
  args.integer("-c,--ctx-size", given.model.context, 0, int64_t{1} << 24,
               "context in tokens (default: the trained length)");
  args.choice("--kv", given.model.kv, {"i8", "f16", "f32"},
              "type of cached keys and values (default i8; f32 for float weights)");
  args.integer("--slots", given.slots, 1, 1024, "conversations that share the weights (default 1)");
  args.integer("-b,--batch-size", given.chunk, 1, 4096, "tokens of one prompt step (default 64)");
  args.integer("-t,--threads", given.model.threads, 1, 1024, "threads");
  const auto bits = [&args](const char* name, std::optional<int>& value, const char* help) {
    args.option(name, "2|3|4|8|32", help, [&value, name](const std::string& s) {
      value = std::stoi(parse_choice(s, {"2", "3", "4", "8", "32"}, name));
    });
  };
  bits("--bits", given.bits, "as if quantized to so many bits first");
  args.choice("--group", given.group, {"32", "64", "128", "row"}, "columns that share a scale");
  bits("--embed-bits", given.embed_bits, "bits of the embedding and the head (default 8)");
  args.choice("--embed-group", given.embed_group, {"32", "64", "128", "row"},
              "columns that share a scale");
  args.choice("--grid", given.grid, {"seq", "lsq", "asym"}, "levels (default asym)");
  std::vector<std::string> presets;
  for (const auto& preset : quant::presets()) presets.emplace_back(preset.name);
  args.choice("--preset", given.preset, presets, "as if quantized by it, instead of --bits");
  args.real("--target-bpw", given.target_bpw, 2, 9,
            "with --preset: widths chosen for so many bits a weight of the blocks");
  args.flag("--json", given.json, "one JSON object");
  args.example("crumb estimate model.crumb -c 4096 --slots 4");
  args.example("crumb estimate model.gguf --bits 2 --group row");
  args.example("crumb estimate model.gguf --preset int3 --target-bpw 3");
  if (!args.parse()) return false;
  if (!given.bits && (!given.group.empty() || given.embed_bits || !given.embed_group.empty()))
    throw Error(ExitCode::kUsage, "--group and --embed-* need --bits");
  if (given.bits && !given.preset.empty())
    throw Error(ExitCode::kUsage, "--bits and --preset exclude each other");
  if (given.target_bpw > 0 && given.preset.empty())
    throw Error(ExitCode::kUsage, "--target-bpw needs --preset");
  return true;
}

quant::Method rtn(int bits, const std::string& group, const std::string& grid) {
  quant::Method options;
  options.bits = bits;
  if (!group.empty()) options.group = group == "row" ? 0 : std::stoll(group);
  options.grid = grid == "seq"   ? kernels::Grid::kSeq
                 : grid == "lsq" ? kernels::Grid::kLsq
                                 : kernels::Grid::kAsym;
  return options;
}

struct Weights {
  int64_t bytes = 0;          // in memory
  int64_t file = 0;           // of the .crumb that runs (0: a float import)
  int64_t quantize_peak = 0;  // 0: nothing to quantize
  bool packed = false;
};

quant::QuantizeOptions quantized(const EstimateArgs& given, const models::ModelConfig& config) {
  quant::QuantizeOptions options;
  if (!given.preset.empty()) {
    const quant::Preset& preset = *quant::find_preset(given.preset);
    options = quant::preset_options(preset, config, 1);
    quant::widen_head(config, quant::wide_rows(preset, config), &options);
  } else {
    options.linear = rtn(*given.bits, given.group, given.grid);
    options.embedding = rtn(given.embed_bits.value_or(8), given.embed_group, given.grid);
    options.head = options.embedding;
  }
  options.threads = thread_count(given.model);
  // As much text as quantize reads by default; only its size counts.
  constexpr int64_t kWindows = 32, kTokens = 512;
  const int64_t tokens = std::min(kTokens, config.context);
  options.calibration.emplace();
  options.calibration->windows = {
      tokens, std::vector<int32_t>(static_cast<std::size_t>(kWindows * tokens))};
  return options;
}

// Bytes of the matrices of the blocks at `bpw` instead of the plan's.
int64_t at_target(const quant::Plan& plan, double bpw) {
  double weights = 0;
  for (const auto& row : plan.rows)
    if (row.tensor.role == models::TensorRole::kLinear)
      weights += static_cast<double>(models::weights_of(row.tensor));
  return plan.bytes + static_cast<int64_t>(weights * (bpw - plan.linear_bpw) / 8);
}

// The quantizer maps the source and holds one tensor or block at a time.
Weights planned(const EstimateArgs& given, const models::SourceModel& source) {
  const quant::QuantizeOptions options = quantized(given, source.config);
  const quant::Plan plan = quant::make_plan(source.config, options);
  Weights weights;
  weights.packed = true;
  weights.bytes = given.target_bpw > 0 ? at_target(plan, given.target_bpw) : plan.bytes;
  weights.file = weights.bytes;
  quant::QuantizeNeed need = quant::quantize_need(source.config, options, {});
  if (given.target_bpw > 0)
    need = quant::both(quant::allocation_need(source.config, options, {}), need);
  int64_t largest = need.bytes;
  for (const auto& row : plan.rows)
    largest = std::max(largest, models::weights_of(row.tensor) * (4 + 1) + row.bytes);
  weights.quantize_peak =
      static_cast<int64_t>(source.file_bytes) + largest + program_bytes(source.config);
  return weights;
}

Weights weights_of(const EstimateArgs& given, models::ModelConfig& config) {
  const auto source = models::open_source(given.path);
  config = source.config;
  if (given.bits || !given.preset.empty()) return planned(given, source);
  Weights weights;
  if (models::is_checkpoint(given.path)) {
    const auto plan = quant::plan_of(models::Checkpoint::open(given.path));
    weights.packed = plan.linear_bpw < 32;
    weights.bytes = plan.bytes;
    weights.file = static_cast<int64_t>(source.file_bytes);
    return weights;
  }
  for (const auto& tensor : models::tensor_table(config))
    weights.bytes += 4 * models::weights_of(tensor);
  return weights;
}

std::string row(const char* name, int64_t bytes, const std::string& remark) {
  return fmt::format("{:<12} {:>10}{}{}\n", name, human_bytes(static_cast<double>(bytes)),
                     remark.empty() ? "" : "   ", remark);
}

}  // namespace

int estimate(Context& context) {
  EstimateArgs given;
  if (!parse(context, given)) return 0;
  models::ModelConfig config;
  const Weights weights = weights_of(given, config);
  if (given.model.context > config.context)
    throw Error(ExitCode::kUsage,
                fmt::format("context out of range (--ctx-size: expected 1..{}, the model's trained "
                            "length, found {})",
                            config.context, given.model.context));
  if (given.model.kv.empty()) given.model.kv = weights.packed ? "i8" : "f32";
  SessionOptions options = session_options(given.model);
  if (options.context == 0) options.context = config.context;
  options.chunk = given.chunk;
  const int threads = threads::make_plan(thread_count(given.model), false).threads;
  const MemoryNeed need =
      memory_need(config, weights.bytes, options, static_cast<int>(given.slots), threads);
  const SystemMemory memory = system_memory();
  const bool fits = memory.available == 0 || need.total() <= memory.available;
  if (given.json) {
    write_stdout(to_text({{"schema", "crumb.estimate/1"},
                          {"weights_bytes", need.weights},
                          {"kv_bytes", need.kv},
                          {"activation_bytes", need.activations},
                          {"program_bytes", need.program},
                          {"total_bytes", need.total()},
                          {"file_bytes", weights.file},
                          {"quantize_peak_bytes", weights.quantize_peak},
                          {"context", options.context},
                          {"kv", given.model.kv},
                          {"slots", given.slots},
                          {"memory_bytes", memory.total},
                          {"available_bytes", memory.available},
                          {"fits", fits}}));
    return 0;
  }
  std::string text = row("weights", need.weights, weights.packed ? "packed" : "floats");
  text += row("KV cache", need.kv,
              fmt::format("{} x {} tokens, {}", given.slots, options.context, given.model.kv));
  text += row("activations", need.activations, "");
  text += row("program", need.program, "with the tokenizer");
  text += row("total", need.total(),
              fmt::format("{} of {} free now", fits ? "fits," : "DOES NOT FIT:",
                          human_bytes(static_cast<double>(memory.available))));
  if (weights.quantize_peak > 0) {
    text += row("file", weights.file, "the .crumb that quantize would write");
    text += row("quantize", weights.quantize_peak, "at the peak");
  }
  write_stdout(text);
  return 0;
}

}  // namespace crumb::apps

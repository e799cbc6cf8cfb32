#include "apps/quantize_args.h"

#include <filesystem>
#include <vector>

#include "apps/output.h"
#include "models/errors.h"
#include "quant/matrix_widths.h"
#include "quant/presets.h"
#include "quant/widths.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

template <class Table>
std::string summaries(const Table& table) {
  std::string text;
  for (const auto& entry : table)
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", entry.name, entry.summary);
  return text;
}

void add_tensor_args(Args& args, const std::string& prefix, TensorArgs& tensor,
                     const std::string& what, const std::string& method_help) {
  args.option("--" + prefix + "bits", "2|3|4|8|32", "bits of " + what,
              [&tensor, prefix](const std::string& s) {
                tensor.bits =
                    std::stoi(parse_choice(s, {"2", "3", "4", "8", "32"}, "--" + prefix + "bits"));
              });
  args.choice("--" + prefix + "group", tensor.group, {"32", "64", "128", "row"},
              "columns that share a scale");
  args.choice("--" + prefix + "method", tensor.method, names(quant::methods()), method_help);
}

void add_method_args(Args& args, QuantizeArgs& given) {
  args.choice("--preset", given.preset, names(quant::presets()),
              "all of the following at once (" + summaries(quant::presets()) + ")");
  add_tensor_args(args, "", given.linear, "the matrices of the blocks (default 4, groups of 64)",
                  "how they are rounded (" + summaries(quant::methods()) + "; default nearest)");
  args.choice("--grid", given.grid, {"seq", "lsq", "asym"},
              "levels: mid-rise, mid-tread, with zero point (default: the method's)");
  args.choice("--search", given.search, {"auto", "mse", "absmax", "weighted"},
              "how a scale is found: least squared error, largest weight, or least error weighted "
              "by the inputs (default auto: the method's; absmax for nearest without rotation, for "
              "least squared error clips the few large weights that matter)");
  add_tensor_args(args, "embed-", given.embedding,
                  "the embedding and the head tied to it (default 8)",
                  "how it is rounded (where the head is one of its own: always nearest)");
  args.integer("--embed-wide", given.wide_rows, 0, 1 << 30,
               "rows of it (or of a head of its own) that get 8 bits, the first of the vocabulary, "
               "which byte-pair tokenizers give to the most frequent tokens: a multiple of 32 "
               "(default: the preset's, else 0)");
  add_tensor_args(args, "head-", given.head, "a head of its own (default: as the embedding)",
                  "how it is rounded");
  args.option(
      "--rotate", "0|64",
      "random signs and Hadamard blocks on the inputs (default: where the method wants them, the "
      "largest of 64 and 32 that divides every input; 0: none)",
      [&given](const std::string& s) {
        given.rotate =
            std::stoi(parse_choice(s, {"0", "32", "64", "128", "256", "512"}, "--rotate"));
      });
  args.integer("--seed", given.seed, 0, INT64_MAX, "seed of the signs (default 1)");
  args.choice("--equalise", given.equalise, names(quant::kEqualiseMethods),
              "column scales folded into norms and neighbours before rounding: sinkhorn (SINQ, no "
              "data), awq and asinq (by the inputs, not with a rotation), diagonal (QuIP's, before "
              "a rotation); default: the preset's, else none");
  args.choice("--order", given.order, names(quant::kColumnOrders),
              "ldlq, gptq: which columns are rounded first");
  args.choice("--scales", given.scales, names(quant::kGroupScales),
              "ldlq, gptq: scales of the weights as they were, or as updated");
  args.integer("--greedy", given.greedy, 0, 100, "ldlq, gptq: most greedy passes after rounding");
  std::vector<std::string> rungs;
  for (const double rung : quant::kDampingLadder) rungs.push_back(fmt::format("{}", rung));
  args.option("--damping", fmt::format("{}", fmt::join(rungs, "|")),
              "ldlq, gptq: least part of the mean added to the second moments' diagonal; more is "
              "taken, and said, where that is not enough (default: the method's)",
              [&given, rungs](const std::string& s) {
                given.damping = std::stod(parse_choice(s, rungs, "--damping"));
              });
  args.integer("--scale-trials", given.trials, 0, 20,
               "ldlq, gptq: larger and as many smaller scales tried for every row");
  args.integer("--refits", given.refits, 0, 20,
               "ldlq, gptq: times scales are fitted to the codes and codes to the scales again");
}

void add_budget_args(Args& args, QuantizeArgs& given) {
  args.real("--target-bpw", given.target_bpw, 2, 9,
            "bits a weight of the blocks' matrices, scales included: widths are chosen by what "
            "they cost (instead of --bits)");
  args.integer("--target-size", given.target_size, 1, INT64_MAX,
               "bytes of the whole file: likewise");
  args.real("--target-tps", given.target_tps, 1e-3, 1e9,
            "tokens a second that the model is to decode here: likewise, with a rule other than "
            "baq and --latency");
  args.text("--latency", given.latency, "FILE",
            "--target-tps: what crumb bench --latency-table measured");
  std::vector<std::string> rules = {"none", "baq", "apq"};
  for (const std::string& rule : names(quant::kWidthRules)) rules.push_back(rule);
  args.choice("--allocate", given.allocate, rules,
              "how widths are chosen (default: baq with a target, else none): by measured losses "
              "(baq), by the orthogonality of what matrices compute (ompq), by relative errors of "
              "the weights (weight-error), or by its controls");
  args.option("--widths", "LIST", "widths that --allocate may choose from (default 3,4,8; not baq)",
              [&given](const std::string& s) { given.widths = parse_list(s, 2, 8, "--widths"); });
  args.text(
      "--plan", given.plan, "FILE",
      "--allocate apq: layers, sizes and widths that crumb search apq found (with --bits 32 its "
      "sizes only: masters for crumb train)");
  args.real("--plan-limit", given.plan_limit, 0.05, 2,
            "which of its limits (default: the only one)");
  args.text("--proxy", given.proxy, "FILE",
            "--allocate emq: the formula that crumb search emq found");
  args.integer("--allocate-seed", given.allocate_seed, 0, INT64_MAX,
               "order of --allocate random and smallest (default 1)");
  args.choice("--allocate-by", given.granularity, names(quant::kGranularities),
              "what has a width of its own: a matrix, or runs of 32 of its rows (default bands)");
  args.integer("--allocate-windows", given.output_windows, 1, 1 << 20,
               "windows of the calibration text that are walked back (default 8)");
}

void check_budget(const QuantizeArgs& given) {
  const bool size = given.target_size > 0, bpw = given.target_bpw > 0, tps = given.target_tps > 0;
  if (int{size} + int{bpw} + int{tps} > 1)
    throw Error(ExitCode::kUsage,
                "--target-bpw, --target-size and --target-tps exclude each other");
  if (tps && (given.latency.empty() || given.allocate.empty() || given.allocate == "baq"))
    throw Error(ExitCode::kUsage,
                "--target-tps needs --latency FILE and --allocate with a rule other than baq",
                "crumb bench --latency-table -m MODEL.crumb > FILE measures it");
  if ((given.allocate == "apq") != !given.plan.empty() ||
      (given.allocate == "apq" && (size || bpw || tps || given.linear.bits.value_or(32) != 32)))
    throw Error(ExitCode::kUsage,
                "--allocate apq needs --plan FILE, which says sizes and widths (found " +
                    std::string(given.plan.empty() ? "none" : "other options of them") + ")",
                "crumb search apq makes one");
  if (given.allocate == "apq") return;
  if ((size || bpw || tps) && (given.allocate == "none" || given.linear.bits))
    throw Error(ExitCode::kUsage, fmt::format("a target and {} exclude each other",
                                              given.linear.bits ? "--bits" : "--allocate none"));
  if (!size && !bpw && !tps && !given.allocate.empty() && given.allocate != "none")
    throw Error(ExitCode::kUsage,
                fmt::format("--allocate {} needs --target-bpw, --target-size or --target-tps",
                            given.allocate));
  const auto kernel_width = [](int64_t bits) {
    return std::ranges::find(quant::kWidths, static_cast<int>(bits)) != quant::kWidths.end();
  };
  if (given.widths.size() < 2 || !std::ranges::all_of(given.widths, kernel_width) ||
      !std::ranges::is_sorted(given.widths, std::less_equal<>{}))
    throw Error(ExitCode::kUsage,
                "invalid value (--widths: expected two or more of 2, 3, 4, 8, "
                "growing)");
}

void add_calibration_args(Args& args, QuantizeArgs& given) {
  args.text("--calib", given.calibration, "FILE",
            "calibration text, plain or JSONL of chats (default: a small corpus of our own)");
  args.integer("--calib-windows", given.windows, 1, 1 << 20, "most windows of it (default 32)");
  args.integer("--calib-length", given.window, 2, 1 << 20, "tokens of a window (default 512)");
  args.integer("--calib-seed", given.calibration_seed, 0, INT64_MAX,
               "order of its documents (default 1)");
  args.choice("--calib-inputs", given.inputs, {"sequential", "prefix", "full"},
              "activations behind all matrices that are quantized already, behind the quantized "
              "earlier blocks, or of the source (default: the preset's, else prefix)");
  args.text(
      "--calib-cache", given.cache, "FOLDER",
      "with --calib-inputs full: keep the statistics here, by hash of model and text, and take "
      "them from here");
  args.choice("--token-weights", given.weights, names(quant::kTokenWeights),
              "sequential: how much a token counts (relative: less in the attention sinks' large "
              "states; gradient: by the loss; default: the preset's, else equal)");
  args.option("--shift", "0..1",
              "sequential: how far a matrix makes up for what its inputs have lost (default: the "
              "preset's, else 0)",
              [&given](const std::string& s) { given.shift = parse_real(s, 0, 1, "--shift"); });
  args.option(
      "--shift-residual", "0..1", "sequential: and for what the residual stream has lost",
      [&given](const std::string& s) { given.residual = parse_real(s, 0, 1, "--shift-residual"); });
}

void add_reconstruction_args(Args& args, QuantizeArgs& given) {
  args.choice("--reconstruct", given.reconstruct, names(quant::kReconstructions),
              "learn rounding and scales of every block by gradient after rounding, from the "
              "calibration text (flexround: a divisor a weight; lrq: divisors of low rank; "
              "block-ap: the weights; default none)");
  args.integer("--epochs", given.epochs, 1, 1000,
               "passes of --reconstruct over the calibration text (default 5)");
  args.option(
      "--reconstruct-shift", "0..1",
      "how far a reconstructed block makes up for what its inputs have lost (default: block-ap "
      ".5, flexround and lrq 1)",
      [&given](const std::string& s) {
        given.learned_shift = parse_real(s, 0, 1, "--reconstruct-shift");
      });
  args.real("--lr", given.rate, 1e-6, 1.0,
            "rate of what --reconstruct learns beside scales: relative changes of the divisor, "
            "parts of a step of the grid (default: the method's)");
}

void add_quality_args(Args& args, QuantizeArgs& given) {
  args.real("--gate", given.gate, 0, 100,
            "refuse a result (exit 7, kept as OUTPUT.rejected) whose divergence on kept-back "
            "calibration text is above this (default: the preset's)");
  args.integer("--check-windows", given.check_windows, 0, 2,
               "windows of that text (default 2 where a method is calibrated or --gate given)");
}

// What a recipe says must not be said again.
void refuse_beside_recipe(const QuantizeArgs& given) {
  const bool more = !given.preset.empty() || !given.grid.empty() || !given.search.empty() ||
                    !given.order.empty() || !given.scales.empty() || given.greedy || given.trials ||
                    given.refits || given.damping || !given.equalise.empty() || given.rotate >= 0 ||
                    given.target_bpw > 0 || given.target_size > 0 || given.target_tps > 0 ||
                    !given.plan.empty() || given.reconstruct != "none" || given.learned_shift ||
                    !given.inputs.empty() || !given.weights.empty() || given.shift ||
                    given.residual || given.wide_rows || given.vision_bits;
  const auto any = [](const TensorArgs& tensor) {
    return tensor.bits || !tensor.method.empty() || !tensor.group.empty();
  };
  if (more || any(given.linear) || any(given.embedding) || any(given.head))
    throw Error(ExitCode::kUsage, "a recipe says how to quantize: no further options of methods");
}

void add_vision_args(Args& args, QuantizeArgs& given) {
  args.text("--vision", given.vision, "FOLDER",
            "give a text model eyes: a vision tower (Hugging Face folder: DINOv2, CLIP, SigLIP)");
  args.text(
      "--projector", given.projector, "FILE",
      "safetensors with the projector between tower and model (projector.linear_1.weight ..)");
  args.option(
      "--vision-bits", "4|8|32",
      "tower and projector: rounded to nearest, one scale a row (8) or groups of 64 (4), or "
      "floats (default 8)",
      [&given](const std::string& s) {
        given.vision_bits = std::stoi(parse_choice(s, {"4", "8", "32"}, "--vision-bits"));
      });
}

bool rotated(const quant::Method& method) { return method.rotation.hadamard != 0; }

// What was given about tensors of one kind, over their base.
quant::Method method_of(const QuantizeArgs& given, const TensorArgs& tensor, quant::Method base,
                        int64_t block) {
  if (!tensor.method.empty()) {
    const int bits = base.bits;
    base = *quant::find_method(tensor.method);
    if (bits == 8) base.bits = bits;  // the embedding's default is not the method's
  }
  if (tensor.bits) base.bits = *tensor.bits;
  if (!tensor.group.empty()) base.group = tensor.group == "row" ? 0 : std::stoll(tensor.group);
  if (!given.grid.empty()) base.grid = *quant::value_of(quant::kGrids, given.grid);
  if (given.rotate >= 0)
    base.rotation.hadamard = given.rotate;
  else if (rotated(base))
    base.rotation.hadamard = block;
  base.rotation.seed = rotated(base) ? static_cast<uint64_t>(given.seed) : 0;
  if (given.search.empty() || given.search == "auto") {
    if (base.rounding == quant::Rounding::kNearest && base.rule == quant::ScaleRule::kMse &&
        !rotated(base))
      base.rule = quant::ScaleRule::kAbsMax;
  } else {
    base.rule = *quant::value_of(quant::kScaleRules, given.search);
  }
  if (!given.order.empty()) base.order = *quant::value_of(quant::kColumnOrders, given.order);
  if (!given.scales.empty()) base.scales = *quant::value_of(quant::kGroupScales, given.scales);
  if (given.greedy) base.greedy_passes = *given.greedy;
  if (given.damping) base.damping = *given.damping;
  if (given.trials) base.trials = *given.trials;
  if (given.refits) base.refits = *given.refits;
  return base;
}

// How blocks are fitted to the streams, over the preset's.
void set_fit(const QuantizeArgs& given, quant::QuantizeOptions* options) {
  quant::BlockFit& fit = options->fit;
  if (!given.inputs.empty()) {
    options->prefix = given.inputs != "full";
    fit.sequential = given.inputs == "sequential";
    if (!fit.sequential) fit = {};
  }
  if (!fit.sequential && (!given.weights.empty() || given.shift || given.residual))
    throw Error(ExitCode::kUsage,
                "--token-weights, --shift and --shift-residual need --calib-inputs sequential");
  if (!given.weights.empty()) fit.weights = *quant::value_of(quant::kTokenWeights, given.weights);
  if (given.shift) fit.shift = *given.shift;
  if (given.residual) fit.residual = *given.residual;
}

}  // namespace

int64_t parse_size(const std::string& text, const char* option) {
  const std::string units = "KMG";
  const auto unit = text.empty() ? std::string::npos : units.find(text.back());
  const std::string number = unit == std::string::npos ? text : text.substr(0, text.size() - 1);
  const double bytes = parse_real(number, 0, 1e12, option);
  return static_cast<int64_t>(unit == std::string::npos
                                  ? bytes
                                  : bytes * static_cast<double>(int64_t{1024} << (10 * unit)));
}

bool parse(Context& context, QuantizeArgs& given) {
  Args args(
      context,
      "Make a model small: SRC (.gguf, .crumb or a Hugging Face folder) to a packed checkpoint.");
  args.positional("SRC", given.source, true, "the model to read");
  args.text("-o,--output", given.output, "FILE", "the checkpoint to write");
  add_method_args(args, given);
  add_budget_args(args, given);
  args.text(
      "--recipe", given.recipe, "FILE",
      "instead of all that: a recipe (the file's or a report's \"recipe\", or inspect --json)");
  add_vision_args(args, given);
  add_calibration_args(args, given);
  add_reconstruction_args(args, given);
  add_quality_args(args, given);
  args.option("--mem", "SIZE", "refuse (exit 5) what would need more memory than this, e.g. 2G",
              [&given](const std::string& s) { given.memory = parse_size(s, "--mem"); });
  args.integer("-t,--threads", given.model.threads, 1, 1024,
               "threads (the result does not depend on it)");
  args.text("--report", given.report, "FILE", "the report (default: OUTPUT with .report.json)");
  args.flag("--dry-run", given.dry_run, "show the plan and stop");
  args.flag("--force", given.force, "replace existing files");
  args.flag("--json", given.json, "the report on stdout");
  args.flag("-q,--quiet", given.quiet, "no plan, no progress");
  args.flag("-v,--verbose", given.verbose, "every tensor in the plan");
  args.example("crumb quantize model.gguf -o model.crumb --preset int4");
  args.example("crumb quantize model.gguf -o model.crumb --bits 4 --group 64");
  args.example("crumb quantize model.gguf -o model.crumb --preset int3 --target-bpw 3");
  if (!args.parse()) return false;
  check_budget(given);
  if (given.output.empty() && !given.dry_run)
    throw Error(ExitCode::kUsage, "no output given (-o FILE)", "--dry-run needs none");
  if (!given.recipe.empty()) refuse_beside_recipe(given);
  if (given.vision.empty() != given.projector.empty())
    throw Error(ExitCode::kUsage,
                "--vision FOLDER and --projector FILE belong together (expected "
                "both, found one)");
  if (given.report.empty() && !given.output.empty())
    given.report = fs::path(given.output).replace_extension(".report.json").string();
  return true;
}

quant::QuantizeOptions quantize_options(const QuantizeArgs& given,
                                        const models::ModelConfig& config) {
  const auto seed = static_cast<uint64_t>(given.seed);
  const int64_t block = quant::rotation_block(config);
  quant::QuantizeOptions options;
  if (!given.preset.empty()) {
    options = quant::preset_options(*quant::find_preset(given.preset), config, seed);
  } else {
    options.linear = options.embedding = *quant::find_method("nearest");
    options.embedding.bits = 8;
  }
  options.linear = method_of(given, given.linear, options.linear, block);
  options.embedding = method_of(given, given.embedding, options.embedding, block);
  options.head =
      method_of(given, given.head, given.preset.empty() ? options.embedding : options.head, block);
  if (given.vision_bits) options.vision = quant::vision_method(*given.vision_bits);
  if (!config.tied_head && quant::needs_statistics(options.embedding)) {
    options.embedding.rounding = quant::Rounding::kNearest;
    options.embedding.rule = quant::ScaleRule::kMse;
  }
  if (!given.equalise.empty())
    options.equalise.method = *quant::value_of(quant::kEqualiseMethods, given.equalise);
  set_fit(given, &options);
  options.reconstruction.method = *quant::value_of(quant::kReconstructions, given.reconstruct);
  options.reconstruction.epochs = given.epochs;
  options.reconstruction.weight_rate = given.rate;
  if (given.learned_shift) options.reconstruction.shift = *given.learned_shift;
  options.threads = thread_count(given.model);
  options.source_path = given.source;
  if (given.wide_rows)
    quant::widen_head(config, *given.wide_rows, &options);
  else if (!given.preset.empty())
    quant::widen_head(config, quant::wide_rows(*quant::find_preset(given.preset), config),
                      &options);
  return options;
}

}  // namespace crumb::apps

#include "quant/quantize.h"

#include <filesystem>
#include <map>

#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "apps/verbs.h"
#include "models/errors.h"
#include "models/file_writer.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

// As the user writes it; numbers are checked, but what a matrix can have is quant/'s business.
struct TensorArgs {
  std::optional<int> bits;
  std::string group;
};

struct QuantizeArgs {
  std::string source, output, report, grid = "asym", search = "auto";
  TensorArgs linear, embedding, head;
  int64_t rotate = -1, seed = 1;  // rotate < 0: chosen from the model's dimensions
  ModelArgs model;                // only its threads
  bool dry_run = false, json = false, force = false, quiet = false, verbose = false;
};

void add_tensor_args(Args& args, const std::string& prefix, TensorArgs& tensor,
                     const std::string& what) {
  args.option("--" + prefix + "bits", "2|3|4|8|32", "bits of " + what,
              [&tensor, prefix](const std::string& s) {
                tensor.bits =
                    std::stoi(parse_choice(s, {"2", "3", "4", "8", "32"}, "--" + prefix + "bits"));
              });
  args.choice("--" + prefix + "group", tensor.group, {"32", "64", "128", "row"},
              "columns that share a scale");
}

bool parse(Context& context, QuantizeArgs& given) {
  Args args(context.program, "Make a model small: SRC (.gguf or .crumb) to a packed checkpoint.");
  args.positional("SRC", given.source, true, "the model to read");
  args.text("-o,--output", given.output, "FILE", "the checkpoint to write");
  add_tensor_args(args, "", given.linear, "the matrices of the blocks (default 4, groups of 64)");
  args.choice("--grid", given.grid, {"seq", "lsq", "asym"},
              "levels: mid-rise, mid-tread, with zero point (default asym)");
  args.choice("--search", given.search, {"auto", "mse", "absmax"},
              "how a scale is found (default auto: mse if rotated, else absmax, for least squared "
              "error clips the few large weights that matter)");
  add_tensor_args(args, "embed-", given.embedding,
                  "the embedding and the head tied to it (default 8)");
  add_tensor_args(args, "head-", given.head, "a head of its own (default: as the embedding)");
  args.option(
      "--rotate", "0|64",
      "random signs and Hadamard blocks on the inputs (default: the largest of 64 and 32 that "
      "divides every input; 0: none)",
      [&given](const std::string& s) {
        given.rotate =
            std::stoi(parse_choice(s, {"0", "32", "64", "128", "256", "512"}, "--rotate"));
      });
  args.integer("--seed", given.seed, 0, INT64_MAX, "seed of the signs (default 1)");
  args.integer("-t,--threads", given.model.threads, 1, 1024,
               "threads (the result does not depend on it)");
  args.text("--report", given.report, "FILE", "the report (default: OUTPUT with .report.json)");
  args.flag("--dry-run", given.dry_run, "show the plan and stop");
  args.flag("--force", given.force, "replace existing files");
  args.flag("--json", given.json, "the report on stdout");
  args.flag("-q,--quiet", given.quiet, "no plan, no progress");
  args.flag("-v,--verbose", given.verbose, "every tensor in the plan");
  args.example("crumb quantize model.gguf -o model.crumb --bits 4 --group 64");
  if (!args.parse(context.args)) return false;
  if (given.output.empty() && !given.dry_run)
    throw Error(ExitCode::kUsage, "no output given (-o FILE)", "--dry-run needs none");
  if (given.report.empty() && !given.output.empty())
    given.report = fs::path(given.output).replace_extension(".report.json").string();
  return true;
}

// Blocks of 64 where they divide every matrix's columns: larger ones gain nothing, and without
// rotation outliers cost round to nearest about a third more divergence.
int64_t rotation_block(const models::ModelConfig& config) {
  for (const int64_t block : {64, 32})
    if (config.dim % block == 0 && config.ffn % block == 0 &&
        config.heads * config.head_dim % block == 0)
      return block;
  return 0;
}

quant::RtnOptions rtn_options(const QuantizeArgs& given, const TensorArgs& tensor,
                              const quant::RtnOptions& base) {
  quant::RtnOptions options = base;
  options.grid = given.grid == "seq"   ? kernels::Grid::kSeq
                 : given.grid == "lsq" ? kernels::Grid::kLsq
                                       : kernels::Grid::kAsym;
  const bool mse = given.search == "auto" ? given.rotate > 0 : given.search == "mse";
  options.search = mse ? quant::ScaleSearch::kMse : quant::ScaleSearch::kAbsMax;
  options.rotation = {given.rotate, given.rotate > 0 ? static_cast<uint64_t>(given.seed) : 0};
  if (tensor.bits) options.bits = *tensor.bits;
  if (!tensor.group.empty()) options.group = tensor.group == "row" ? 0 : std::stoll(tensor.group);
  return options;
}

quant::QuantizeOptions quantize_options(const QuantizeArgs& given) {
  quant::QuantizeOptions options;
  quant::RtnOptions eight;
  eight.bits = 8;
  options.linear = rtn_options(given, given.linear, {});
  options.embedding = rtn_options(given, given.embedding, eight);
  options.head = rtn_options(given, given.head, options.embedding);
  options.threads = thread_count(given.model);
  options.source_path = given.source;
  return options;
}

// A report or checkpoint never replaces anything by accident, and the source never at all.
void refuse_overwrite(const std::string& path, const QuantizeArgs& given) {
  std::error_code error;
  if (fs::equivalent(path, given.source, error))
    throw Error(ExitCode::kUsage, "output and source are the same file (" + path + ")",
                "choose another -o FILE");
  if (fs::is_regular_file(path, error) && !given.force)
    throw Error(ExitCode::kUsage, "file exists (" + path + ")", "--force replaces it");
}

std::string bits_text(const models::MatrixPlan& matrix, int64_t columns) {
  if (matrix.bits == 32 || matrix.bits == 0) return "F32";
  return fmt::format("INT{} {} {}", matrix.bits,
                     matrix.group == columns ? "row" : fmt::format("g{}", matrix.group),
                     quant::grid_name(matrix.grid));
}

// "model.layers.7.mlp.up_proj" -> "mlp.up_proj": the kind of tensor that a row of the table stands
// for.
std::string kind_of(const models::TensorInfo& tensor) {
  if (tensor.layer < 0) return tensor.name;
  return tensor.name.substr(models::layer_tensor(tensor.layer, "").size());
}

std::string plan_table(const quant::Plan& plan, bool every) {
  struct Kind {
    int64_t count = 0, bytes = 0;
    const quant::PlanRow* first = nullptr;
  };
  std::vector<std::string> order;
  std::map<std::string, Kind> kinds;
  for (const auto& row : plan.rows) {
    const std::string name = every ? row.tensor.name : kind_of(row.tensor);
    Kind& kind = kinds[name];
    if (kind.count == 0) order.push_back(name);
    if (kind.count == 0) kind.first = &row;
    kind.count += 1;
    kind.bytes += row.bytes;
  }
  Table table({"tensor", ">n", "shape", "stored", ">bytes", ">bpw"});
  for (const auto& name : order) {
    const Kind& kind = kinds[name];
    table.add({name, std::to_string(kind.count), shape_text(kind.first->tensor.shape),
               bits_text(kind.first->matrix, kind.first->tensor.shape.back()),
               std::to_string(kind.bytes), fmt::format("{:.3f}", kind.first->bpw)});
  }
  return table.text();
}

void show_plan(const quant::Plan& plan, const models::SourceModel& source,
               const QuantizeArgs& given) {
  note("source: {} ({}, {}): losses are against it\n", one_line(source.config.name),
       one_line(source.description), human_bytes(static_cast<double>(source.file_bytes)));
  note("{}", plan_table(plan, given.verbose));
  note("plan: {} in tensors · linear {:.3f} bpw · head {:.3f} bits · total {:.3f} bpw\n",
       human_bytes(static_cast<double>(plan.bytes)), plan.linear_bpw, plan.head_bits,
       plan.total_bpw);
  note("inputs: {}\n", given.rotate > 0
                           ? fmt::format("rotated, random signs (seed {}) and Hadamard "
                                         "blocks of {}",
                                         given.seed, given.rotate)
                           : "not rotated");
}

Json plan_json(const quant::Plan& plan, const models::SourceModel& source) {
  Json tensors = Json::array();
  for (const auto& row : plan.rows) {
    const bool packed = row.matrix.bits != 32 && row.matrix.bits != 0;
    tensors.push_back({{"name", row.tensor.name},
                       {"shape", row.tensor.shape},
                       {"bits", packed ? row.matrix.bits : 32},
                       {"group", packed ? row.matrix.group : 0},
                       {"grid", packed ? quant::grid_name(row.matrix.grid) : "none"},
                       {"bytes", row.bytes}});
  }
  return {{"schema", "crumb.quantize-plan/1"},
          {"source", source.description},
          {"bytes", plan.bytes},
          {"linear_bpw", plan.linear_bpw},
          {"head_bits", plan.head_bits},
          {"total_bpw", plan.total_bpw},
          {"tensors", std::move(tensors)}};
}

}  // namespace

int quantize(Context& context) {
  QuantizeArgs given;
  if (!parse(context, given)) return 0;
  if (!given.dry_run) {
    refuse_overwrite(given.output, given);
    refuse_overwrite(given.report, given);
  }
  const models::SourceModel source = models::open_source(given.source);
  if (given.rotate < 0) given.rotate = rotation_block(source.config);
  const quant::QuantizeOptions options = quantize_options(given);
  const quant::Plan plan = quant::make_plan(source.config, options);
  if (!given.quiet) show_plan(plan, source, given);
  if (given.dry_run) {
    if (given.json) write_stdout(to_text(plan_json(plan, source)));
    return 0;
  }
  const auto report = with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    return quant::quantize(source, options, given.output, progress);
  });
  const std::string json = quant::to_json(report, source);
  models::write_file(given.report, json.ends_with('\n') ? json : json + "\n");
  if (given.json) write_stdout(json.ends_with('\n') ? json : json + "\n");
  if (!given.quiet)
    note("wrote {} ({}, {:.3f} bpw) in {:.1f} s, peak memory {} · report: {}\n", given.output,
         human_bytes(static_cast<double>(report.file_bytes)), report.plan.total_bpw, report.seconds,
         human_bytes(static_cast<double>(report.peak_rss_bytes)), given.report);
  return 0;
}

}  // namespace crumb::apps

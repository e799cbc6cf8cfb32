#include "quant/quantize.h"

#include <filesystem>
#include <map>

#include "apps/output.h"
#include "apps/progress.h"
#include "apps/quantize_args.h"
#include "apps/verbs.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "quant/calibrated_job.h"
#include "quant/corpus.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

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
               const quant::QuantizeOptions& options, const QuantizeArgs& given) {
  note("source: {} ({}, {}): losses are against it\n", one_line(source.config.name),
       one_line(source.description), human_bytes(static_cast<double>(source.file_bytes)));
  note("{}", plan_table(plan, given.verbose));
  note("plan: {} in tensors · linear {:.3f} bpw · head {:.3f} bits · total {:.3f} bpw\n",
       human_bytes(static_cast<double>(plan.bytes)), plan.linear_bpw, plan.head_bits,
       plan.total_bpw);
  const models::Rotation& rotation = options.linear.rotation;
  note("inputs: {}\n", rotation.hadamard > 0
                           ? fmt::format("rotated, random signs (seed {}) and Hadamard "
                                         "blocks of {}",
                                         rotation.seed, rotation.hadamard)
                           : "not rotated");
}

// What learning did to the blocks, and how fast it was.
void show_reconstruction(const quant::QuantizeReport& report) {
  double ratio = 0, speed = 0;
  int64_t improved = 0;
  const auto blocks = std::ssize(report.reconstruction);
  for (const quant::ReconstructReport& block : report.reconstruction) {
    ratio += (block.improved ? block.loss_end / block.loss_start : 1) / static_cast<double>(blocks);
    speed += block.tokens_per_second / static_cast<double>(blocks);
    improved += block.improved ? 1 : 0;
  }
  note(
      "reconstruction: loss of the windows kept back {:.3f} x on average, {} of {} blocks improved "
      "(the others keep their start), {:.0f} tokens/s a block\n",
      ratio, improved, blocks, speed);
}

void print_notice(const std::string& line) { note("crumb: note: {}\n", line); }

// The windows of the calibration text, said on stderr.
quant::CalibrationText calibration_text(const models::SourceModel& source,
                                        const QuantizeArgs& given) {
  quant::CorpusOptions options;
  options.path = given.calibration;
  options.windows = given.windows;
  options.S = given.window;
  options.seed = static_cast<uint64_t>(given.calibration_seed);
  quant::Corpus corpus = quant::make_corpus(source, options);
  const std::string name = given.calibration.empty()
                               ? "default corpus"
                               : fs::path(given.calibration).filename().string();
  if (!given.quiet)
    note("calibration: {}, {} windows of {} tokens\n", name, corpus.windows.count(), given.window);
  return {std::move(corpus.windows), name, options.seed};
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
  quant::QuantizeOptions options = quantize_options(given, source.config);
  const quant::Plan plan = quant::make_plan(source.config, options);
  if (!given.quiet) show_plan(plan, source, options, given);
  if (given.dry_run) {
    if (given.json) write_stdout(to_text(plan_json(plan, source)));
    return 0;
  }
  if (quant::needs_calibration(source.config, options, {}))
    options.calibration = calibration_text(source, given);
  const auto report = with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    return quant::quantize(source, options, given.output, {{}, print_notice, progress});
  });
  if (!given.quiet && !report.reconstruction.empty()) show_reconstruction(report);
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

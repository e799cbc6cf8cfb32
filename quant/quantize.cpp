#include "quant/quantize.h"

#include <sys/resource.h>

#include <cassert>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "models/errors.h"
#include "models/json.h"
#include "quant/calibrated_job.h"
#include "quant/recipe.h"
#include "quant/reconstruct_step.h"

namespace crumb::quant {
namespace {

using Json = nlohmann::ordered_json;

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

void refuse_same_file(const std::string& source, const std::string& output) {
  std::error_code error;  // a file that does not exist yet is no other file's twin
  if (source.empty() || !std::filesystem::equivalent(source, output, error)) return;
  throw Error(ExitCode::kUsage,
              "output would replace its own source (" + output + ": expected another file, found " +
                  source + ")",
              "choose another output name");
}

void tell(const ProgressFn& progress, std::string_view stage, std::string_view item, int64_t done,
          int64_t total) {
  if (progress && !progress({stage, item, done, total})) throw Interrupted{};
}

Json tensor_json(const PlanRow& row, const std::map<std::string, TensorReport>& reports) {
  const bool packed = row.matrix.bits != 32;
  Json json = {{"name", row.tensor.name},
               {"shape", row.tensor.shape},
               {"bits", stored_bits(row)},
               {"group", packed ? row.matrix.group : 0},
               {"grid", packed ? grid_name(row.matrix.grid) : "none"},
               {"bytes", row.bytes}};
  if (packed)
    json["rotation"] = {{"hadamard", row.matrix.rotation.hadamard},
                        {"seed", row.matrix.rotation.seed}};
  for (const models::Band& band : row.matrix.bands)
    json["bands"].push_back({band.strips, band.bits});
  const auto found = reports.find(row.tensor.name);
  if (found == reports.end()) return json;
  const TensorReport& report = found->second;
  json["mse"] = report.distortion.mse;
  json["relative_error"] = report.distortion.relative_error;
  if (report.output_error) json["output_error"] = *report.output_error;
  if (report.damping > 0) json["damping"] = report.damping;
  if (report.shift_damping > 0) json["shift_damping"] = report.shift_damping;
  if (report.dead > 0) json["dead_columns"] = report.dead;
  return json;
}

// One object a block, in order.
Json reconstruction_json(const std::vector<ReconstructReport>& blocks) {
  Json all = Json::array();
  for (const ReconstructReport& block : blocks)
    all.push_back({{"layer", block.layer},
                   {"loss_start", block.loss_start},
                   {"loss_end", block.loss_end},
                   {"mse_start", block.mse_start},
                   {"mse_end", block.mse_end},
                   {"kept", block.improved ? "learned" : "start"},
                   {"steps", block.steps},
                   {"changed_codes", block.changed},
                   {"seconds", block.seconds},
                   {"tokens_per_second", block.tokens_per_second}});
  return all;
}

std::vector<models::MatrixPlan> matrix_plans(const Plan& plan) {
  std::vector<models::MatrixPlan> plans;
  for (const PlanRow& row : plan.rows)
    if (models::may_be_quantized(row.tensor.role)) plans.push_back(row.matrix);
  return plans;
}

void require_calibration(const QuantizeOptions& options) {
  if (!options.calibration)
    throw Error(ExitCode::kUsage,
                "this method needs calibration (expected a calibration text, found none)");
}

// A tensor that needs no statistics.
StoredTensor convert(const models::SourceModel& source, const QuantizeOptions& options,
                     const PlanRow& row) {
  const auto& shape = row.tensor.shape;
  StoredTensor stored;
  stored.name = row.tensor.name;
  std::vector<float> weights(static_cast<std::size_t>(weights_of(row.tensor)));
  source.read(stored.name, weights);
  if (row.matrix.bits == 32) {
    require_finite(weights, shape.back(), stored.name);
    stored.values = std::move(weights);
    return stored;
  }
  MatrixResult result = round_matrix(weights, shape[0], shape[1], method_for(options, row.tensor),
                                     nullptr, stored.name, options.threads);
  stored.packed = std::move(result.packed);
  stored.report = std::move(result.report);
  return stored;
}

void write(const StoredTensor& tensor, models::CheckpointWriter* writer, QuantizeReport* report) {
  if (!tensor.values.empty()) {
    writer->add(tensor.name, tensor.values);
    return;
  }
  writer->add(tensor.name, tensor.packed);
  report->tensors.push_back(tensor.report);
}

// The parts of a journal, or blocks that are equalised without data, one in memory at a time:
// tensors are asked for in execution order.
class Parts {
 public:
  Parts(const Journal* journal, const models::SourceModel& source, const QuantizeOptions& options)
      : journal_(journal),
        source_(source),
        options_(options),
        head_part_(head_part(source.config)) {
    const models::TensorInfo head = head_tensor(source.config);
    if (needs_statistics(method_for(options, head))) head_ = head.name;
  }

  // Null if the tensor stands for itself. Throws IoError if it should be in the journal and is not.
  const StoredTensor* find(const models::TensorInfo& tensor) {
    const bool alone = journal_ == nullptr && options_.equalise.method == Equalise::kNone;
    if (alone || (tensor.layer < 0 && (journal_ == nullptr || tensor.name != head_)))
      return nullptr;
    const int64_t part = tensor.layer >= 0 ? tensor.layer : head_part_;
    if (part != part_)
      block_ = journal_ != nullptr ? journal_->load(part)
                                   : std::optional(round_without_data(source_, options_, part));
    part_ = part;
    if (block_)
      for (const StoredTensor& stored : *block_)
        if (stored.name == tensor.name) return &stored;
    throw IoError("the journal has lost a tensor (" + journal_->path(part) + ": expected " +
                      tensor.name + ", found none)",
                  "run the same command again");
  }

 private:
  const Journal* journal_;
  const models::SourceModel& source_;
  const QuantizeOptions& options_;
  int64_t head_part_;
  std::string head_;  // empty: not in the journal
  int64_t part_ = -1;
  std::optional<StoredBlock> block_;
};

void write_model(const models::SourceModel& source, const QuantizeOptions& options,
                 const Journal* journal, const std::string& output, const ProgressFn& progress,
                 QuantizeReport* report) {
  int64_t total = 0;
  for (const PlanRow& row : report->plan.rows) total += weights_of(row.tensor);
  models::CheckpointWriter writer(output, models::header_of(source, report->recipe),
                                  matrix_plans(report->plan));
  Parts parts(journal, source, options);
  const std::string_view stage = journal == nullptr ? "quantize" : "write";
  int64_t done = 0;
  for (const PlanRow& row : report->plan.rows) {
    tell(progress, stage, row.tensor.name, done, total);
    const StoredTensor* stored = parts.find(row.tensor);
    write(stored != nullptr ? *stored : convert(source, options, row), &writer, report);
    done += weights_of(row.tensor);
  }
  tell(progress, stage, {}, done, total);
  report->file_bytes = writer.commit();
}

}  // namespace

QuantizeReport quantize(const models::SourceModel& source, const QuantizeOptions& options,
                        const std::string& output, const QuantizeHooks& hooks) {
  const auto start = std::chrono::steady_clock::now();
  refuse_same_file(options.source_path, output);
  QuantizeReport report;
  report.plan = make_plan(source.config, options);
  report.recipe = recipe_json(source, options);
  std::optional<Journal> journal;
  if (needs_calibration(source.config, options, hooks.steps)) {
    require_calibration(options);
    BlockSteps steps = hooks.steps;
    if (options.reconstruction.method != Reconstruction::kNone) {
      assert(!steps.reconstruct);
      steps.reconstruct =
          reconstruction_step(options, hooks.notice, hooks.progress, &report.reconstruction);
    }
    journal.emplace(output + ".journal", report.recipe, hooks.notice);
    run_calibrated(source, options, steps, *journal, hooks.cache, hooks.notice, hooks.progress);
  }
  write_model(source, options, journal ? &*journal : nullptr, output, hooks.progress, &report);
  if (journal) journal->remove();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.peak_rss_bytes = peak_rss_bytes();
  return report;
}

int64_t planned_file_bytes(const models::SourceModel& source, const QuantizeOptions& options) {
  return models::checkpoint_bytes(models::header_of(source, recipe_json(source, options)),
                                  matrix_plans(make_plan(source.config, options)));
}

std::string to_json(const QuantizeReport& report, const models::SourceModel& source) {
  std::map<std::string, TensorReport> reports;
  for (const TensorReport& tensor : report.tensors) reports[tensor.name] = tensor;
  Json tensors = Json::array();
  for (const PlanRow& row : report.plan.rows) tensors.push_back(tensor_json(row, reports));
  Json json = {{"schema", "crumb.quantize/1"},
               {"config", Json::parse(models::to_json(source.config))},
               {"file_bytes", report.file_bytes},
               {"linear_bpw", report.plan.linear_bpw},
               {"head_bits", report.plan.head_bits},
               {"total_bpw", report.plan.total_bpw},
               {"tensors", tensors},
               {"recipe", Json::parse(report.recipe)},
               {"seconds", report.seconds},
               {"peak_rss_bytes", report.peak_rss_bytes}};
  if (!report.reconstruction.empty())
    json["reconstruction"] = reconstruction_json(report.reconstruction);
  return json.dump();
}

}  // namespace crumb::quant

#include "quant/quantize.h"

#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <system_error>
#include <utility>

#include "models/errors.h"
#include "quant/version.h"

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

int64_t weights_of(const models::TensorInfo& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
}

void tell(const ProgressFn& progress, std::string_view item, int64_t done, int64_t total) {
  if (progress && !progress({"quantize", item, done, total})) throw Interrupted{};
}

Json stage_json(const std::string& tensors, const RtnOptions& options) {
  if (options.bits == 32) return {{"stage", "float"}, {"tensors", tensors}};
  return {{"stage", "rtn"},
          {"tensors", tensors},
          {"bits", options.bits},
          {"group", options.group},
          {"grid", grid_name(options.grid)},
          {"search", options.search == ScaleSearch::kMse ? "mse" : "absmax"},
          {"rotation", {{"hadamard", options.rotation.hadamard}, {"seed", options.rotation.seed}}}};
}

Json tensor_json(const PlanRow& row, const std::map<std::string, Distortion>& distortions) {
  const bool packed = row.matrix.bits != 32;
  Json json = {{"name", row.tensor.name},
               {"shape", row.tensor.shape},
               {"bits", row.matrix.bits},
               {"group", packed ? row.matrix.group : 0},
               {"grid", packed ? grid_name(row.matrix.grid) : "none"},
               {"bytes", row.bytes}};
  if (packed)
    json["rotation"] = {{"hadamard", row.matrix.rotation.hadamard},
                        {"seed", row.matrix.rotation.seed}};
  const auto found = distortions.find(row.tensor.name);
  if (found != distortions.end()) {
    json["mse"] = found->second.mse;
    json["relative_error"] = found->second.relative_error;
  }
  return json;
}

models::CheckpointHeader make_header(const models::SourceModel& source, const std::string& recipe) {
  models::CheckpointHeader header;
  header.config = source.config;
  header.vocab = source.vocab;
  header.chat_template = source.chat_template;
  header.generation = source.generation;
  header.license = source.license;
  header.recipe = recipe;
  return header;
}

std::vector<models::MatrixPlan> matrix_plans(const Plan& plan) {
  std::vector<models::MatrixPlan> plans;
  for (const PlanRow& row : plan.rows)
    if (models::may_be_quantized(row.tensor.role)) plans.push_back(row.matrix);
  return plans;
}

}  // namespace

QuantizeReport quantize(const models::SourceModel& source, const QuantizeOptions& options,
                        const std::string& output, const ProgressFn& progress) {
  const auto start = std::chrono::steady_clock::now();
  refuse_same_file(options.source_path, output);
  QuantizeReport report;
  report.plan = make_plan(source.config, options);
  report.recipe = recipe_json(source, options);
  int64_t total = 0;
  for (const PlanRow& row : report.plan.rows) total += weights_of(row.tensor);

  models::CheckpointWriter writer(output, make_header(source, report.recipe),
                                  matrix_plans(report.plan));
  std::vector<float> weights;  // [N, K] of the tensor at hand
  int64_t done = 0;
  for (const PlanRow& row : report.plan.rows) {
    const std::string& name = row.tensor.name;
    tell(progress, name, done, total);
    const int64_t n = weights_of(row.tensor);
    weights.resize(static_cast<std::size_t>(n));
    source.read(name, weights);
    if (row.matrix.bits == 32) {
      require_finite(weights, row.tensor.shape.back(), name);
      writer.add(name, weights);
    } else {
      const auto packed = rtn(weights, row.tensor.shape[0], row.tensor.shape[1],
                              options_for(options, row.tensor.role), name, options.threads);
      report.tensors.push_back({name, measure(weights, packed, options.threads)});
      writer.add(name, packed);
    }
    done += n;
  }
  tell(progress, {}, done, total);
  report.file_bytes = writer.commit();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.peak_rss_bytes = peak_rss_bytes();
  return report;
}

std::string recipe_json(const models::SourceModel& source, const QuantizeOptions& options) {
  Json stages = Json::array();
  stages.push_back(stage_json("embedding", options.embedding));
  stages.push_back(stage_json("linear", options.linear));
  if (!source.config.tied_head) stages.push_back(stage_json("head", options.head));
  const Json recipe = {{"schema", "crumb.recipe/1"},
                       {"program", kProgram},
                       {"source", {{"hash", source.hash}, {"weights", source.description}}},
                       {"stages", stages}};
  return recipe.dump();
}

std::string to_json(const QuantizeReport& report, const models::SourceModel& source) {
  std::map<std::string, Distortion> distortions;
  for (const TensorReport& tensor : report.tensors) distortions[tensor.name] = tensor.distortion;
  Json tensors = Json::array();
  for (const PlanRow& row : report.plan.rows) tensors.push_back(tensor_json(row, distortions));
  const Json json = {{"schema", "crumb.quantize/1"},
                     {"config", Json::parse(models::to_json(source.config))},
                     {"file_bytes", report.file_bytes},
                     {"linear_bpw", report.plan.linear_bpw},
                     {"head_bits", report.plan.head_bits},
                     {"total_bpw", report.plan.total_bpw},
                     {"tensors", tensors},
                     {"recipe", Json::parse(report.recipe)},
                     {"seconds", report.seconds},
                     {"peak_rss_bytes", report.peak_rss_bytes}};
  return json.dump();
}

}  // namespace crumb::quant

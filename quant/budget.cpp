#include "quant/budget.h"

#include <algorithm>

#include "models/errors.h"
#include "models/json.h"
#include "quant/quantize.h"

namespace crumb::quant {
namespace {

int64_t linear_bytes(const Plan& plan) {
  int64_t bytes = 0;
  for (const PlanRow& row : plan.rows)
    if (row.tensor.role == models::TensorRole::kLinear) bytes += row.bytes;
  return bytes;
}

double weights_of(std::span<const MatrixCosts> costs) {
  double weights = 0;
  for (const MatrixCosts& matrix : costs)
    weights += static_cast<double>(matrix.N) * static_cast<double>(matrix.K);
  return weights;
}

std::string allocation_json(const Budget& budget, Granularity granularity, const CostOptions& costs,
                            double loss) {
  nlohmann::ordered_json json = {{"method", "baq"},
                                 {"granularity", name_of(kGranularities, granularity)}};
  if (budget.file_bytes > 0)
    json["target_size"] = budget.file_bytes;
  else
    json["target_bpw"] = budget.linear_bpw;
  json["output_windows"] = costs.output_windows;
  json["seed"] = costs.seed;
  json["predicted_kld"] = loss;
  return json.dump();
}

}  // namespace

int64_t matrix_room(const models::SourceModel& source, const QuantizeOptions& options,
                    const Budget& budget, double weights) {
  if (budget.file_bytes == 0) return static_cast<int64_t>(budget.linear_bpw * weights / 8);
  return budget.file_bytes - planned_file_bytes(source, options) +
         linear_bytes(make_plan(source.config, options));
}

BudgetReport fit_budget(const models::SourceModel& source, std::span<const MatrixCosts> costs,
                        const Budget& budget, Granularity granularity,
                        const CostOptions& cost_options, QuantizeOptions* options) {
  BudgetReport report;
  const double weights = weights_of(costs);
  const bool by_size = budget.file_bytes > 0;
  const UniformWidths uniform = uniform_widths(costs, options->linear);
  // Everything else in the file; the header grows with the bands, so it is looked at again below.
  report.budget = matrix_room(source, *options, budget, weights);
  for (;;) {
    if (report.budget < uniform.bytes.front())
      throw Error(ExitCode::kUsage,
                  "target too small (the blocks' matrices: expected at least " +
                      std::to_string(uniform.bytes.front()) + " bytes, found room for " +
                      std::to_string(report.budget) + ")",
                  "a smaller embedding (--embed-bits) leaves more room");
    report.widths = choose_widths(costs, options->linear, granularity, report.budget);
    for (const auto& [name, bands] : report.widths.bands) options->bands[name] = bands;
    options->allocation = allocation_json(budget, granularity, cost_options, report.widths.loss);
    if (!by_size) break;
    const int64_t over = planned_file_bytes(source, *options) - budget.file_bytes;
    if (over <= 0) break;
    report.budget -= over;
  }
  const auto bpw = [&](int64_t bytes) { return 8 * static_cast<double>(bytes) / weights; };
  report.linear_bpw = bpw(report.widths.bytes);
  for (std::size_t i = 0; i < kWidths.size(); ++i) {
    report.uniform_loss[i] = uniform.loss[i];
    report.uniform_bpw[i] = bpw(uniform.bytes[i]);
  }
  report.gains = predicted_gains(costs);
  return report;
}

}  // namespace crumb::quant

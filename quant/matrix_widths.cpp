#include "quant/matrix_widths.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/pack.h"
#include "models/errors.h"
#include "models/json.h"
#include "models/tensors.h"
#include "quant/allocation.h"
#include "quant/model_walk.h"
#include "quant/orthogonality.h"
#include "quant/parallel.h"
#include "quant/quantize.h"
#include "quant/rotation.h"
#include "quant/rtn.h"
#include "quant/train/block.h"

namespace crumb::quant {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// What every matrix takes at every width.
struct Table {
  std::vector<models::TensorInfo> tensors;
  std::vector<std::vector<int64_t>> bytes;  // [matrices][widths]
  std::vector<std::vector<int64_t>> cost;   // likewise: bytes, or nanoseconds
  std::string unit = "bytes";
  double weights = 0;
};

Table table_of(const models::ModelConfig& config, const QuantizeOptions& options,
               std::span<const int> widths) {
  Table table;
  for (std::size_t w = 0; w < widths.size(); ++w) {
    QuantizeOptions uniform = options;
    uniform.bits.clear();
    uniform.bands.clear();
    uniform.linear.bits = widths[w];
    std::size_t i = 0;
    for (const PlanRow& row : make_plan(config, uniform).rows) {
      if (row.tensor.role != models::TensorRole::kLinear) continue;
      if (w == 0) {
        table.tensors.push_back(row.tensor);
        table.bytes.emplace_back();
        table.weights += static_cast<double>(models::weights_of(row.tensor));
      }
      table.bytes[i++].push_back(row.bytes);
    }
  }
  table.cost = table.bytes;
  return table;
}

// Nanoseconds instead of bytes; every step costs at least one, so that it can be weighed.
void count_time(const train::WidthCosts& time, std::span<const int> widths, Table* table) {
  table->unit = "ns";
  for (std::size_t i = 0; i < table->cost.size(); ++i)
    for (std::size_t w = 0; w < widths.size(); ++w) {
      const double ns = train::cost_at(time, i, widths[w]);
      table->cost[i][w] = static_cast<int64_t>(std::ceil(ns));
      if (w > 0) table->cost[i][w] = std::max(table->cost[i][w], table->cost[i][w - 1] + 1);
    }
}

int64_t total(const Table& table, std::size_t width) {
  int64_t cost = 0;
  for (const auto& row : table.cost) cost += row[width];
  return cost;
}

// Index of the wider of the two neighbours that the budget lies between.
std::size_t upper_width(const Table& table, std::span<const int> widths, int64_t budget) {
  if (total(table, 0) > budget)
    throw Error(ExitCode::kUsage,
                "target too small (the blocks' matrices: expected at least " +
                    std::to_string(total(table, 0)) + " " + table.unit + ", found room for " +
                    std::to_string(budget) + ")",
                "allow a smaller width (--widths)");
  for (std::size_t w = 1; w < widths.size(); ++w)
    if (total(table, w) > budget) return w;
  throw Error(ExitCode::kUsage,
              "target too large (the blocks' matrices: expected less than " +
                  std::to_string(total(table, widths.size() - 1)) + " " + table.unit +
                  ", found room for " + std::to_string(budget) + ")",
              "allow a larger width (--widths), or use --bits");
}

// Relative squared error of rounding to nearest as the job would, at every width.
std::vector<std::vector<double>> weight_errors(const models::SourceModel& source,
                                               const Table& table, const QuantizeOptions& options,
                                               std::span<const int> widths,
                                               const ProgressFn& progress) {
  std::vector<std::vector<double>> errors;
  const auto matrices = std::ssize(table.tensors);
  for (int64_t i = 0; i < matrices; ++i) {
    const models::TensorInfo& tensor = table.tensors[size_of(i)];
    if (progress && !progress({"errors", tensor.name, i, matrices})) throw Interrupted{};
    const int64_t N = tensor.shape[0], K = tensor.shape[1];
    std::vector<float> w(size_of(N * K));
    source.read(tensor.name, w);
    const Method& m = options.linear;
    std::vector<float> rotated = w;
    if (m.rotation.hadamard != 0) rotate_rows(rotated, K, m.rotation, options.threads);
    double energy = 0;
    for (const float v : w) energy += static_cast<double>(v) * static_cast<double>(v);
    errors.emplace_back();
    for (const int bits : widths) {
      const models::PackedData data =
          rtn(rotated, N, K, {bits, m.group, m.grid, ScaleSearch::kMse, {}}, tensor.name,
              options.threads);
      const kernels::PackedMatrix packed = view(data);
      std::vector<float> row(size_of(K));
      double sum = 0;
      for (int64_t n = 0; n < N; ++n) {
        kernels::dequantize_row(packed, n, row);
        for (int64_t k = 0; k < K; ++k) {
          const double e = static_cast<double>(row[size_of(k)]) -
                           static_cast<double>(rotated[size_of(n * K + k)]);
          sum += e * e;
        }
      }
      errors.back().push_back(energy > 0 ? sum / energy : 0);
    }
  }
  return errors;
}

// Losses by EMQ's proxy.
std::vector<std::vector<double>> proxy_losses(const models::SourceModel& source,
                                              const QuantizeOptions& options,
                                              const WidthRuleOptions& rule,
                                              const ProgressFn& progress) {
  emq::TermOptions how;
  how.widths = rule.widths;
  how.threads = options.threads;
  const auto terms =
      emq::measure_terms(source, options.calibration->windows, options.linear, how, progress);
  auto scores = emq::scores_of(*rule.proxy, terms, rule.widths);
  for (auto& row : scores)
    for (double& score : row) score = rule.falls ? -score : score;
  return scores;
}

bool by_knapsack(WidthRule rule) {
  return rule == WidthRule::kWeightError || rule == WidthRule::kEmq;
}

// By value for its cost, the best first; equal ones in the order they stand.
std::vector<std::size_t> best_first(std::span<const double> values,
                                    std::span<const int64_t> costs) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater<>{}, [&](std::size_t i) {
    return values[i] / static_cast<double>(costs[i]);
  });
  return order;
}

// The order in which matrices are widened, as values of the linear programme.
std::vector<double> values_of(const WidthRuleOptions& rule, std::span<const double> gamma,
                              std::span<const int64_t> costs) {
  if (rule.rule == WidthRule::kOmpq) return ompq_importance(gamma, rule.spread);
  if (rule.rule == WidthRule::kOmpqReversed) {
    std::vector<double> opposite;
    for (const double g : gamma) opposite.push_back(-g);
    return ompq_importance(opposite, rule.spread);
  }
  std::mt19937_64 rng(rule.seed);
  std::vector<double> values;
  for (const int64_t cost : costs) {
    const double u = static_cast<double>(rng() >> 11) * 0x1p-53;
    // Per byte a random number, or the same value for all but for the order of equals.
    values.push_back(rule.rule == WidthRule::kRandom ? u * static_cast<double>(cost)
                                                     : 1 + 1e-6 * u);
  }
  return values;
}

// Widths between two neighbours by the linear programme.
void widen(const WidthRuleOptions& rule, const Table& table, std::span<const double> gamma,
           WidthRuleReport* report) {
  const std::size_t high = upper_width(table, rule.widths, report->budget);
  report->low = rule.widths[high - 1];
  report->high = rule.widths[high];
  std::vector<int64_t> costs;
  for (const auto& row : table.cost) costs.push_back(row[high] - row[high - 1]);
  int64_t room = report->budget - total(table, high - 1);
  report->cost = total(table, high - 1);
  const std::vector<double> values = values_of(rule, gamma, costs);
  const std::vector<double> x = fractional_knapsack(values, costs, room);
  const std::vector<std::size_t> order = best_first(values, costs);
  report->bits.assign(costs.size(), report->low);
  const auto take = [&](std::size_t i) {
    report->bits[i] = report->high;
    report->cost += costs[i];
    room -= costs[i];
  };
  for (const std::size_t i : order)
    if (x[i] >= 1) take(i);
  for (const std::size_t i : order)
    if (x[i] < 1 && costs[i] <= room) take(i);
}

void by_errors(const Table& table, const WidthRuleOptions& rule,
               const std::vector<std::vector<double>>& errors, WidthRuleReport* report) {
  std::vector<Unit> units;
  for (std::size_t i = 0; i < errors.size(); ++i) {
    Unit& unit = units.emplace_back();
    for (std::size_t w = 0; w < errors[i].size(); ++w)
      unit.choices.push_back({table.cost[i][w], errors[i][w]});
  }
  const Allocation allocation = allocate(units, report->budget);
  report->cost = allocation.bytes;
  report->bits.clear();
  for (const int choice : allocation.choice)
    report->bits.push_back(rule.widths[static_cast<std::size_t>(choice)]);
}

std::string allocation_json(const Budget& budget, const WidthRuleOptions& rule,
                            const WidthRuleReport& report) {
  nlohmann::ordered_json json = {{"method", name_of(kWidthRules, rule.rule)},
                                 {"widths", rule.widths}};
  if (rule.time)
    json["target_ns"] = rule.time->budget;
  else if (budget.file_bytes > 0)
    json["target_size"] = budget.file_bytes;
  else
    json["target_bpw"] = budget.linear_bpw;
  if (rule.rule == WidthRule::kRandom || rule.rule == WidthRule::kSmallest)
    json["seed"] = rule.seed;
  if (rule.proxy) json["proxy"] = nlohmann::ordered_json::parse(emq::to_json(*rule.proxy));
  if (report.gamma.empty()) return json.dump();
  json["spread"] = rule.spread;
  for (std::size_t i = 0; i < report.names.size(); ++i)
    json["gamma"][report.names[i]] = report.gamma[i];
  return json.dump();
}

}  // namespace

std::vector<double> fractional_knapsack(std::span<const double> values,
                                        std::span<const int64_t> costs, int64_t room) {
  std::vector<double> x(values.size());
  for (const std::size_t i : best_first(values, costs)) {
    if (values[i] <= 0 || room <= 0) break;
    x[i] = std::min(1.0, static_cast<double>(room) / static_cast<double>(costs[i]));
    room -= costs[i];
  }
  return x;
}

std::vector<double> ompq_importance(std::span<const double> gamma, double spread) {
  const auto [least, most] = std::ranges::minmax(gamma);
  const double beta = most > least ? spread / (most - least) : 0;
  std::vector<double> theta;
  for (const double g : gamma) theta.push_back(std::exp(-beta * (g - least)));
  return theta;
}

train::WidthCosts time_costs(const models::ModelConfig& config, const std::string& text,
                             const std::string& file, double tokens_per_second) {
  std::vector<train::MatrixPart> parts;
  for (const models::TensorInfo& tensor : models::tensor_table(config)) {
    if (tensor.role != models::TensorRole::kLinear) continue;
    parts.emplace_back();
    parts.back().name = tensor.name;
  }
  train::WidthCosts costs = train::costs_from_json(text, parts);
  const auto json = nlohmann::json::parse(text);  // lawful: it has been read above
  const auto model = json.find("model");
  if (model == json.end() || !model->is_object() || !model->contains("rest_ns") ||
      !(*model)["rest_ns"].is_number())
    throw Error(ExitCode::kUsage,
                "no time of a token beside its matrices (" + file + ": expected model.rest_ns)",
                "crumb bench --latency-table of a packed model measures it");
  costs.budget = 1e9 / tokens_per_second - (*model)["rest_ns"].get<double>();
  if (!(costs.budget > 0))
    throw Error(ExitCode::kUsage, "target too fast (--target-tps: expected less than " +
                                      std::to_string(1e9 / (*model)["rest_ns"].get<double>()) +
                                      " tokens/s, which all but the matrices takes, found " +
                                      std::to_string(tokens_per_second) + ")");
  return costs;
}

WidthRuleReport choose_by_rule(const models::SourceModel& source, const Budget& budget,
                               const WidthRuleOptions& rule, QuantizeOptions* options,
                               const ProgressFn& progress) {
  const auto start = std::chrono::steady_clock::now();
  Table table = table_of(source.config, *options, rule.widths);
  if (rule.time) count_time(*rule.time, rule.widths, &table);
  WidthRuleReport report;
  for (const models::TensorInfo& tensor : table.tensors) report.names.push_back(tensor.name);
  report.budget = rule.time ? static_cast<int64_t>(rule.time->budget)
                            : matrix_room(source, *options, budget, table.weights);
  if (rule.rule == WidthRule::kOmpq || rule.rule == WidthRule::kOmpqReversed) {
    OrthogonalityOptions how;
    how.threads = options->threads;
    report.gamma =
        redundancy(measure_orthogonality(source, options->calibration->windows, how, progress));
  }
  std::vector<std::vector<double>> errors;
  if (rule.rule == WidthRule::kWeightError)
    errors = weight_errors(source, table, *options, rule.widths, progress);
  if (rule.rule == WidthRule::kEmq) errors = proxy_losses(source, *options, rule, progress);
  for (;;) {
    if (by_knapsack(rule.rule))
      by_errors(table, rule, errors, &report);
    else
      widen(rule, table, report.gamma, &report);
    for (std::size_t i = 0; i < report.names.size(); ++i)
      options->bits[report.names[i]] = report.bits[i];
    options->allocation = allocation_json(budget, rule, report);
    if (budget.file_bytes == 0 || rule.time) break;
    // The header holds the recipe, which has grown.
    const int64_t over = planned_file_bytes(source, *options) - budget.file_bytes;
    if (over <= 0) break;
    report.budget -= over;
  }
  for (std::size_t i = 0; i < report.bits.size(); ++i)
    report.bytes += table.bytes[i][static_cast<std::size_t>(
        std::ranges::find(rule.widths, report.bits[i]) - rule.widths.begin())];
  report.linear_bpw = 8 * static_cast<double>(report.bytes) / table.weights;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

int64_t width_rule_need(const models::ModelConfig& c, const QuantizeOptions& options,
                        const WidthRuleOptions& rule) {
  constexpr int64_t kFloat = sizeof(float);
  int64_t block = 0, largest = 0, matrices = 0;
  for (const models::TensorInfo& t : models::tensor_table(c)) {
    if (t.role != models::TensorRole::kLinear) continue;
    ++matrices;
    largest = std::max(largest, models::weights_of(t));
    if (t.layer == 0) block += models::weights_of(t);
  }
  // A matrix, rotated, and its codes.
  if (rule.rule == WidthRule::kWeightError) return largest * (2 * kFloat + 2);
  if (rule.rule == WidthRule::kRandom || rule.rule == WidthRule::kSmallest) return 0;
  const OrthogonalityOptions how;
  const int64_t S = options.calibration->windows.S;
  if (rule.rule == WidthRule::kEmq) {
    const emq::TermOptions terms;
    const int64_t windows = std::min(terms.windows, options.calibration->windows.count());
    const int64_t at_once = std::min<int64_t>(resolve_threads(options.threads), windows);
    return kFloat * ((c.layers + 2) * windows * S * c.dim + 2 * c.vocab * c.dim + 3 * block +
                     at_once * (block + 2 * S * train::activation_floats(c) +
                                kHeadTokens * (c.vocab + 2 * c.dim)) +
                     matrices * terms.samples * static_cast<int64_t>(4 + rule.widths.size()));
  }
  const int64_t n = how.positions * std::min(how.windows, options.calibration->windows.count());
  const int64_t threads = std::min<int64_t>(resolve_threads(options.threads), how.windows);
  return kFloat * (matrices * n * n + c.vocab * c.dim + block + how.windows * S * c.dim +
                   threads * S * (train::activation_floats(c) + c.dim) +
                   threads * n * 3 * std::max(c.dim, c.ffn));
}

}  // namespace crumb::quant

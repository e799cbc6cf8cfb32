#include "quant/train/learned_widths.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <nlohmann/json.hpp>

#include "models/errors.h"
#include "quant/allocation.h"

namespace crumb::quant::train {
namespace {

constexpr double kLeast = kWidths.front(), kMost = kWidths.back();
constexpr double kEdge = 0.05;  // sigmoid() does not reach its ends: a start stays this far inside

template <class Work>
void for_matrices(const ParameterLayout& layout, const Work& work) {
  for (const auto& layer : layout.layers)
    for (const MatrixSlot& slot : layer)
      for (std::size_t i = 0; i < slot.names.size(); ++i)
        work(slot.names[i], slot.rows[i] * slot.K);
}

std::size_t segment_of(double bits) {
  std::size_t i = 0;
  while (i + 2 < kWidths.size() && bits > kWidths[i + 1]) ++i;
  return i;
}
double slope_at(const WidthCosts& costs, std::size_t matrix, double bits) {
  const std::size_t i = segment_of(bits);
  return (costs.cost[matrix][i + 1] - costs.cost[matrix][i]) / (kWidths[i + 1] - kWidths[i]);
}

// dh/dx.
double penalty_slope(double x) { return std::clamp(x / kBudgetKnee, -1.0, 1.0); }

}  // namespace

WidthCosts byte_costs(const ParameterLayout& layout, double average_bits) {
  WidthCosts costs;
  for_matrices(layout, [&](const std::string&, int64_t weights) {
    auto& row = costs.cost.emplace_back();
    for (std::size_t i = 0; i < kWidths.size(); ++i)
      row[i] = static_cast<double>(weights) * kWidths[i] / 8;
  });
  costs.budget = static_cast<double>(layout.masters) * average_bits / 8;
  return costs;
}

WidthCosts costs_from_json(const std::string& text, const ParameterLayout& layout) {
  WidthCosts costs;
  try {
    const auto json = nlohmann::json::parse(text);
    costs.budget = json.at("budget");
    for_matrices(layout, [&](const std::string& name, int64_t) {
      json.at("costs").at(name).get_to(costs.cost.emplace_back());
      if (!std::is_sorted(costs.cost.back().begin(), costs.cost.back().end()) ||
          !(costs.cost.back()[0] > 0))
        throw Error(ExitCode::kUsage, "costs of widths (" + name + ": expected them to grow)");
    });
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::kUsage, std::string("costs of widths (") + error.what() + ")");
  }
  if (!(costs.budget > 0)) throw Error(ExitCode::kUsage, "costs of widths (expected a budget)");
  return costs;
}

double cost_at(const WidthCosts& costs, std::size_t matrix, double bits) {
  const std::size_t i = segment_of(bits);
  return costs.cost[matrix][i] + slope_at(costs, matrix, bits) * (bits - kWidths[i]);
}

LearnedWidths widths_from(std::span<const int> bits) {
  LearnedWidths widths;
  for (const int b : bits) {
    const double part =
        (std::clamp(static_cast<double>(b), kLeast + kEdge, kMost - kEdge) - kLeast) /
        (kMost - kLeast);
    widths.beta.push_back(static_cast<float>(std::log(part / (1 - part))));
  }
  widths.mean.resize(bits.size());
  widths.square.resize(bits.size());
  widths.chosen.resize(bits.size());
  return widths;
}

double width_of(float beta) {
  return kLeast + (kMost - kLeast) / (1 + std::exp(-static_cast<double>(beta)));
}

void step_widths(const WidthStep& step, std::span<const double> d_bits, LearnedWidths* widths) {
  assert(d_bits.size() == widths->beta.size() && step.costs.cost.size() == d_bits.size());
  double cost = 0;
  for (std::size_t i = 0; i < d_bits.size(); ++i)
    cost += cost_at(step.costs, i, width_of(widths->beta[i]));
  const double push = step.budget_weight * penalty_slope(cost / step.costs.budget - 1);
  std::vector<float> gradient;
  for (std::size_t i = 0; i < d_bits.size(); ++i) {
    const double b = width_of(widths->beta[i]);
    const double d_beta = (b - kLeast) * (kMost - b) / (kMost - kLeast);
    gradient.push_back(static_cast<float>(
        d_beta * (d_bits[i] + push * slope_at(step.costs, i, b) / step.costs.budget)));
  }
  adam(step.adam, gradient, 1.0f, widths->beta, widths->mean, widths->square);
}

int stored_width(const LearnedWidths& widths, std::size_t matrix) {
  if (widths.chosen[matrix] > 0) return static_cast<int>(widths.chosen[matrix]);
  const double b = width_of(widths.beta[matrix]);
  return *std::min_element(kWidths.begin(), kWidths.end(),
                           [&](int x, int y) { return std::abs(x - b) < std::abs(y - b); });
}

void round_widths(const WidthCosts& costs, LearnedWidths* widths) {
  std::vector<Unit> units;
  for (std::size_t i = 0; i < widths->beta.size(); ++i) {
    Unit& unit = units.emplace_back();
    for (std::size_t w = 0; w < kWidths.size(); ++w)
      unit.choices.push_back({static_cast<int64_t>(std::ceil(costs.cost[i][w])),
                              std::abs(width_of(widths->beta[i]) - kWidths[w])});
  }
  const Allocation best = allocate(units, static_cast<int64_t>(costs.budget));
  for (std::size_t i = 0; i < units.size(); ++i)
    widths->chosen[i] = static_cast<float>(kWidths[static_cast<std::size_t>(best.choice[i])]);
}

}  // namespace crumb::quant::train

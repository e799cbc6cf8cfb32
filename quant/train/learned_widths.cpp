#include "quant/train/learned_widths.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "models/errors.h"
#include "models/json.h"
#include "quant/allocation.h"
#include "quant/train/noise.h"

namespace crumb::quant::train {
namespace {

constexpr double kLeast = kWidths.front(), kMost = kWidths.back();
constexpr double kEdge = 0.05;  // sigmoid() does not reach its ends: a start stays this far inside

std::size_t segment_of(double bits) {
  std::size_t i = 0;
  while (i + 2 < kWidths.size() && bits > kWidths[i + 1]) ++i;
  return i;
}
double slope_at(const WidthCosts& costs, std::size_t part, double bits) {
  const std::size_t i = segment_of(bits);
  return (costs.cost[part][i + 1] - costs.cost[part][i]) / (kWidths[i + 1] - kWidths[i]);
}

// From the step of the form to that of `bits` with the same lowest level.
float log_factor(const MatrixForm& form, int bits) {
  return std::log(static_cast<float>(kernels::grid_zero2(form.grid, form.bits)) /
                  static_cast<float>(kernels::grid_zero2(form.grid, bits)));
}

void add_to_scales(const MatrixPart& part, float factor, std::span<float> parameters) {
  for (float& a : parameters.subspan(static_cast<std::size_t>(part.scale_at),
                                     static_cast<std::size_t>(part.N)))
    a += factor;
}

// dh/dx.
double penalty_slope(double x) { return std::clamp(x / kBudgetKnee, -1.0, 1.0); }

}  // namespace

WidthCosts byte_costs(std::span<const MatrixPart> parts, double average_bits) {
  WidthCosts costs;
  for (const MatrixPart& part : parts) {
    const double weights = static_cast<double>(part.N * part.K);
    auto& row = costs.cost.emplace_back();
    for (std::size_t i = 0; i < kWidths.size(); ++i) row[i] = weights * kWidths[i] / 8;
    costs.budget += weights * average_bits / 8;
  }
  return costs;
}

WidthCosts costs_from_json(const std::string& text, std::span<const MatrixPart> parts) {
  WidthCosts costs;
  try {
    const auto json = nlohmann::json::parse(text);
    costs.budget = json.at("budget");
    for (const MatrixPart& part : parts) {
      auto& row = costs.cost.emplace_back();
      json.at("costs").at(part.name).get_to(row);
      if (!(row[0] > 0))
        throw Error(ExitCode::kUsage, "costs of widths (" + part.name + ": expected more than 0)");
      for (std::size_t w = 1; w < row.size(); ++w) row[w] = std::max(row[w], row[w - 1]);
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::kUsage, std::string("costs of widths (") + error.what() + ")");
  }
  if (!(costs.budget > 0)) throw Error(ExitCode::kUsage, "costs of widths (expected a budget)");
  return costs;
}

double cost_at(const WidthCosts& costs, std::size_t part, double bits) {
  const std::size_t i = segment_of(bits);
  return costs.cost[part][i] + slope_at(costs, part, bits) * (bits - kWidths[i]);
}

double noise_width(const NoiseStep& noise, const LearnedWidths& widths, const MatrixForm& start,
                   std::size_t i) {
  if (widths.beta.empty()) return start.bits;
  const double b = width_of(widths.beta[i]);
  if (!noise.random_widths) return b;
  // Numbers far beyond those of weights.
  const auto eps = static_cast<double>(train::noise(noise.seed, (uint64_t{1} << 62) + i));
  return std::clamp(std::round(b + eps), kLeast, kMost);
}

double cost_share(const WidthCosts& costs, const LearnedWidths& widths) {
  double cost = 0;
  for (std::size_t i = 0; i < widths.beta.size(); ++i)
    cost += cost_at(
        costs, i,
        widths.settled() ? static_cast<double>(widths.chosen[i]) : width_of(widths.beta[i]));
  return cost / costs.budget;
}

LearnedWidths widths_from(std::span<const MatrixForm> forms) {
  LearnedWidths widths;
  for (const MatrixForm& form : forms) {
    const double b = std::clamp(static_cast<double>(form.bits), kLeast + kEdge, kMost - kEdge);
    widths.beta.push_back(static_cast<float>(std::log((b - kLeast) / (kMost - b))));
  }
  widths.mean.resize(forms.size());
  widths.square.resize(forms.size());
  widths.chosen.resize(forms.size());
  return widths;
}

double width_of(float beta) {
  return kLeast + (kMost - kLeast) / (1 + std::exp(-static_cast<double>(beta)));
}

void step_widths(const AdamStep& step, const WidthCosts& costs, double budget_weight,
                 std::span<const double> d_bits, LearnedWidths* widths) {
  assert(d_bits.size() == widths->beta.size() && costs.cost.size() == d_bits.size());
  const double push = budget_weight * penalty_slope(cost_share(costs, *widths) - 1);
  std::vector<float> gradient;
  for (std::size_t i = 0; i < d_bits.size(); ++i) {
    const double b = width_of(widths->beta[i]);
    const double d_beta = (b - kLeast) * (kMost - b) / (kMost - kLeast);
    gradient.push_back(
        static_cast<float>(d_beta * (d_bits[i] + push * slope_at(costs, i, b) / costs.budget)));
  }
  adam(step, gradient, 1.0f, widths->beta, widths->mean, widths->square);
}

MatrixForm scale_form(const MatrixForm& start, const LearnedWidths& widths, std::size_t i) {
  if (!widths.settled()) return start;
  return {static_cast<int>(widths.chosen[i]), start.grid};
}

RoundingForm rounding_form(const MatrixForm& start, const LearnedWidths& widths, std::size_t i) {
  if (widths.beta.empty() || widths.settled()) return {scale_form(start, widths, i), 0};
  const double b = width_of(widths.beta[i]);
  const int bits = *std::min_element(kWidths.begin(), kWidths.end(), [&](int x, int y) {
    return std::abs(x - b) < std::abs(y - b);
  });
  return {{bits, start.grid}, log_factor(start, bits)};
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

void apply_widths(const LearnedWidths& widths, Student* student) {
  for (std::size_t i = 0; i < student->parts.size(); ++i) {
    const RoundingForm now = rounding_form(student->forms[i], widths, i);
    add_to_scales(student->parts[i], now.log_factor, student->parameters);
    student->forms[i] = now.form;
  }
}

void settle_widths(const WidthCosts& costs, std::span<const MatrixPart> parts,
                   std::span<const MatrixForm> start, LearnedWidths* widths,
                   std::span<float> parameters) {
  round_widths(costs, widths);
  for (std::size_t i = 0; i < parts.size(); ++i)
    add_to_scales(parts[i], log_factor(start[i], static_cast<int>(widths->chosen[i])), parameters);
}

}  // namespace crumb::quant::train

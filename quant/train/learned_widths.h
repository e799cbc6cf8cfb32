// Widths learned by gradient under a budget (NIPQ): one real width b_i for every matrix,
//   b = 2 + 6 sigmoid(beta),
// moved by Adam on beta along dL/db from the noise (noise.h) and a relative penalty of the cost,
//   weight h(sum_i c_i(b_i) / budget - 1),  h(x) = x^2 / (2 w) up to |x| = w, |x| - w / 2 beyond,
// w = kBudgetKnee. A knapsack ends it: each matrix gets a width the kernels have, at the truncation
// it has learned.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/sensitivity.h"
#include "quant/train/adam.h"
#include "quant/train/student.h"

namespace crumb::quant::train {

inline constexpr double kBudgetKnee = 0.01;

// What every matrix costs at each of kWidths, in any one unit (bytes, nanoseconds), growing; real
// widths lie on straight lines between. A budget in the same unit.
struct WidthCosts {
  std::vector<std::array<double, kWidths.size()>> cost;  // of the student's parts
  double budget = 0;
};
// Bytes of codes, so that the budget is `average_bits` a weight.
WidthCosts byte_costs(std::span<const MatrixPart> parts, double average_bits);
// From JSON {"budget": x, "costs": {"matrix name": [at 2, 3, 4, 8]}}, as `crumb bench
// --latency-table` writes it; a width that is cheaper than a narrower one counts as much as that.
// Throws Error(kUsage) for another text or a matrix that is missing.
WidthCosts costs_from_json(const std::string& text, std::span<const MatrixPart> parts);
double cost_at(const WidthCosts& costs, std::size_t part, double bits);

// Of the student's parts; empty if widths are not learned.
struct LearnedWidths {
  std::vector<float> beta, mean, square;
  std::vector<float> chosen;  // 0 before round_widths()
  bool settled() const { return !chosen.empty() && chosen[0] > 0; }
  bool operator==(const LearnedWidths&) const = default;
};
LearnedWidths widths_from(std::span<const MatrixForm> forms);
double width_of(float beta);

// NIPQ (noise.h) in one step.
struct NoiseStep {
  bool on = true;                     // off: the tail, which rounds; the first such settles widths
  uint64_t seed = 0;                  // noise_seed()
  const WidthCosts* costs = nullptr;  // of widths that are learned; null: they are the student's
  AdamStep widths;
  double budget_weight = 10;
  int input_bits = 0;  // inputs of linears are quantized too (input_quant.h); 0: they are not
  AdamStep inputs;     // of their log alphas
  bool random_widths = false;  // noise of round(b + uniform in [-1/2, 1/2)) bits instead of b
};

// Bits of the noise of part i.
double noise_width(const NoiseStep& noise, const LearnedWidths& widths, const MatrixForm& start,
                   std::size_t i);

// d_bits [parts]: dL/db without the penalty.
void step_widths(const AdamStep& step, const WidthCosts& costs, double budget_weight,
                 std::span<const double> d_bits, LearnedWidths* widths);

// Cost of the widths as they are, as a part of the budget.
double cost_share(const WidthCosts& costs, const LearnedWidths& widths);

// How part i is rounded without noise: at its chosen width, or the nearest of kWidths until then,
// or its form's if widths are not learned. Log scales of a settled student are those of the chosen
// widths, before they are its form's; exp(log scale + log_factor) is the step.
struct RoundingForm {
  MatrixForm form;
  float log_factor = 0;
};
RoundingForm rounding_form(const MatrixForm& start, const LearnedWidths& widths, std::size_t i);
// The form that log scales belong to.
MatrixForm scale_form(const MatrixForm& start, const LearnedWidths& widths, std::size_t i);
// Sets `chosen`: of all choices within the budget one of least sum |b_i - chosen_i| (quant/
// allocation.h; costs rounded up to whole units). Throws Error(kUsage) if INT2 exceeds the budget.
void round_widths(const WidthCosts& costs, LearnedWidths* widths);
// Gives a student (whose parameters are a state's) the forms that its matrices are rounded in, and
// the log scales of these.
void apply_widths(const LearnedWidths& widths, Student* student);
// round_widths(), and log scales (in `parameters`) to those of the chosen widths.
void settle_widths(const WidthCosts& costs, std::span<const MatrixPart> parts,
                   std::span<const MatrixForm> start, LearnedWidths* widths,
                   std::span<float> parameters);

}  // namespace crumb::quant::train

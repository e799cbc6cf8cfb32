// Widths learned by gradient under a budget (NIPQ): one real width b_i for every matrix,
//   b = 2 + 6 sigmoid(beta),
// moved by Adam on beta along dL/db from the noise (noise.h) and a relative penalty of the cost,
//   weight h(sum_i c_i(b_i) / budget - 1),  h(x) = x^2 / (2 w) up to |x| = w, |x| - w / 2 beyond,
// w = kBudgetKnee. A knapsack ends it: each matrix gets a width the kernels have.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/sensitivity.h"
#include "quant/train/adam.h"
#include "quant/train/layout.h"

namespace crumb::quant::train {

inline constexpr double kBudgetKnee = 0.01;

// What every matrix costs at each of kWidths, in any one unit (bytes, nanoseconds), growing; real
// widths lie on straight lines between. A budget in the same unit.
struct WidthCosts {
  std::vector<std::array<double, kWidths.size()>> cost;  // [matrices], in the layout's order
  double budget = 0;
};
// Bytes of codes, so that the budget is `average_bits` a weight.
WidthCosts byte_costs(const ParameterLayout& layout, double average_bits);
// From JSON {"budget": x, "costs": {"matrix name": [at 2, 3, 4, 8]}}, e.g. times of a kernel.
// Throws Error(kUsage) for another text, a matrix that is missing or costs that do not grow.
WidthCosts costs_from_json(const std::string& text, const ParameterLayout& layout);
double cost_at(const WidthCosts& costs, std::size_t matrix, double bits);

// Of all matrices of the layout in its order; empty if widths are not learned.
struct LearnedWidths {
  std::vector<float> beta, mean, square;
  std::vector<float> chosen;  // 0 before round_widths()
  bool operator==(const LearnedWidths&) const = default;
};
LearnedWidths widths_from(std::span<const int> bits);
double width_of(float beta);

struct WidthStep {
  AdamStep adam;
  double budget_weight = 10;
  WidthCosts costs;
};
// d_bits [matrices]: dL/db without the penalty.
void step_widths(const WidthStep& step, std::span<const double> d_bits, LearnedWidths* widths);

// The width a matrix has when noise is off: the chosen one, or the nearest of kWidths until then.
int stored_width(const LearnedWidths& widths, std::size_t matrix);
// Sets `chosen`: of all choices within the budget one of least sum |b_i - chosen_i| (quant/
// allocation.h; costs rounded up to whole units). Throws Error(kUsage) if INT2 exceeds the budget.
void round_widths(const WidthCosts& costs, LearnedWidths* widths);

}  // namespace crumb::quant::train

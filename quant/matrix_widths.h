// One width for every matrix of the blocks by a rule that needs no losses of the quantized model:
// OMPQ, and its controls. (BAQ, which measures losses: quant/budget.h.)
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/budget.h"
#include "quant/emq/proxy.h"
#include "quant/method.h"
#include "quant/plan.h"
#include "quant/train/learned_widths.h"

namespace crumb::quant {

enum class WidthRule : uint8_t {
  kOmpq,          // theta = exp(-beta gamma), gamma by quant/orthogonality.h
  kOmpqReversed,  // theta = exp(+beta gamma): the control of the order
  kRandom,        // matrices in a random order (seed)
  kSmallest,      // smallest matrices first, equal ones in a random order
  kWeightError,   // exact knapsack over relative squared errors of rounding to nearest
  kEmq,           // exact knapsack over the scores of an evolved proxy (quant/emq/)
};
inline constexpr Named<WidthRule> kWidthRules[] = {{"ompq", WidthRule::kOmpq},
                                                   {"ompq-reversed", WidthRule::kOmpqReversed},
                                                   {"random", WidthRule::kRandom},
                                                   {"smallest", WidthRule::kSmallest},
                                                   {"weight-error", WidthRule::kWeightError},
                                                   {"emq", WidthRule::kEmq}};

struct WidthRuleOptions {
  WidthRule rule = WidthRule::kOmpq;
  std::vector<int> widths = {3, 4, 8};  // growing, of quant/sensitivity.h's
  double spread = 2;                    // OMPQ: beta times the range of gamma
  uint64_t seed = 1;
  std::optional<emq::Proxy> proxy;  // EMQ's
  bool falls = false;               // a larger score of it means less divergence
  // A budget of time instead of bytes: nanoseconds of the blocks' matrices, in execution order.
  std::optional<train::WidthCosts> time;
};

// From crumb bench --latency-table: what a token at this speed leaves for the matrices, everything
// else taking what it took there. Throws Error(kUsage) naming `file` for another text, or if
// nothing is left.
train::WidthCosts time_costs(const models::ModelConfig& config, const std::string& text,
                             const std::string& file, double tokens_per_second);

// Maximises sum_i value_i x_i, 0 <= x_i <= 1, under sum_i cost_i x_i <= room: the linear programme
// of OMPQ between two widths. Costs > 0. At most one x is a fraction (fractional knapsack: by
// value / cost, equal ones in the order they stand).
std::vector<double> fractional_knapsack(std::span<const double> values,
                                        std::span<const int64_t> costs, int64_t room);

// theta_i = exp(-beta gamma_i), beta = spread / range(gamma); largest 1. A range of 0 gives ones.
std::vector<double> ompq_importance(std::span<const double> gamma, double spread);

struct WidthRuleReport {
  std::vector<std::string> names;
  std::vector<int> bits;
  std::vector<double> gamma;  // OMPQ: of every matrix
  int low = 0, high = 0;      // rules without a knapsack: the two widths around the budget
  int64_t bytes = 0;
  int64_t cost = 0, budget = 0;  // bytes, or nanoseconds
  double linear_bpw = 0, seconds = 0;
};

// Sets options->bits and options->allocation; `budget` is not read if rule.time is there. The split
// matrix of the linear programme gets the lower width, then whatever still fits is widened in the
// same order, so that less than the smallest matrix' step is left. OMPQ and EMQ need
// options->calibration. Throws Error(kUsage) if the smallest width does not fit or two widths do
// not lie around the budget; Interrupted. `linear_bpw` of a report is of the matrices of the
// blocks, scales included.
WidthRuleReport choose_by_rule(const models::SourceModel& source, const Budget& budget,
                               const WidthRuleOptions& rule, QuantizeOptions* options,
                               const ProgressFn& progress);

// Bytes at the peak of choose_by_rule(), without the program and the source's pages.
int64_t width_rule_need(const models::ModelConfig& config, const QuantizeOptions& options,
                        const WidthRuleOptions& rule);

}  // namespace crumb::quant

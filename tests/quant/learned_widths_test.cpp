// Learned widths alone, with a loss whose best split is known: sum_i w_i 4^-b_i.
#include "quant/train/learned_widths.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>

#include "models/errors.h"

namespace crumb::quant::train {
namespace {

ParameterLayout layout_of_two_layers() {
  models::ModelConfig config;
  config.layers = 2;
  config.dim = 64;
  config.ffn = 128;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 32;
  return parameter_layout(config);
}

std::vector<double> weights_of(const ParameterLayout& layout) {
  std::vector<double> weights;
  for (const auto& layer : layout.layers)
    for (const MatrixSlot& slot : layer)
      for (const int64_t rows : slot.rows) weights.push_back(static_cast<double>(rows * slot.K));
  return weights;
}

TEST(LearnedWidths, StartAtTheirMatricesWidths) {
  const std::vector<int> bits = {2, 3, 4, 8};
  const LearnedWidths widths = widths_from(bits);
  for (std::size_t i = 0; i < bits.size(); ++i) {
    EXPECT_NEAR(width_of(widths.beta[i]), bits[i], 0.051);
    EXPECT_EQ(stored_width(widths, i), bits[i]);
  }
}

TEST(LearnedWidths, CostsAreStraightBetweenLegalWidths) {
  const ParameterLayout layout = layout_of_two_layers();
  const WidthCosts costs = byte_costs(layout, 3);
  EXPECT_EQ(costs.cost.size(), 14u);
  EXPECT_NEAR(cost_at(costs, 0, 2.5), 64 * 64 * 2.5 / 8, 1e-9);
  EXPECT_NEAR(cost_at(costs, 0, 6.0), 64 * 64 * 6.0 / 8, 1e-9);
  EXPECT_NEAR(costs.budget, static_cast<double>(layout.masters) * 3 / 8, 1e-9);
  std::string text = R"({"budget": 50, "costs": {)";
  for (const auto& layer : layout.layers)
    for (const MatrixSlot& slot : layer)
      for (const std::string& name : slot.names) text += '"' + name + R"(": [1, 2, 4, 12],)";
  text.back() = '}';
  const WidthCosts read = costs_from_json(text + "}", layout);
  EXPECT_NEAR(cost_at(read, 3, 5), 6, 1e-9);
  EXPECT_EQ(read.budget, 50);
  EXPECT_THROW(costs_from_json(R"({"budget": 50, "costs": {}})", layout), Error);
  EXPECT_THROW(costs_from_json("[]", layout), Error);
}

// Acceptance: within 0.05 of the target before rounding, not all equal, sensitive matrices higher.
TEST(LearnedWidths, FollowSensitivityUnderABudget) {
  const ParameterLayout layout = layout_of_two_layers();
  const std::vector<double> weights = weights_of(layout);
  constexpr double target = 3;
  std::vector<double> need;  // of a weight: matrix i is 4^(i % 3) times as sensitive as the least
  for (std::size_t i = 0; i < weights.size(); ++i)
    need.push_back(1e-4 * std::pow(4.0, static_cast<double>(i % 3)));
  LearnedWidths widths = widths_from(std::vector<int>(weights.size(), 4));
  constexpr int64_t steps = 600;
  WidthStep step{{}, 10, byte_costs(layout, target)};
  for (int64_t t = 1; t <= steps; ++t) {
    step.adam = adam_step({0.9, 0.95, 1e-8, 0}, t, 3e-2 * cosine_schedule(t, steps, 10, 0.02));
    std::vector<double> d_bits;
    for (std::size_t i = 0; i < weights.size(); ++i)
      d_bits.push_back(-2 * std::numbers::ln2 * need[i] * weights[i] *
                       std::pow(4.0, -width_of(widths.beta[i])));
    step_widths(step, d_bits, &widths);
  }
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  double average = 0, stored = 0;
  std::array<double, 3> mean{};
  std::array<int, 3> count{};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    average += width_of(widths.beta[i]) * weights[i] / all;
    mean[i % 3] += width_of(widths.beta[i]);
    ++count[i % 3];
  }
  EXPECT_NEAR(average, target, 0.05);
  // The optimum gives every factor of 4 one bit.
  for (std::size_t k = 0; k + 1 < 3; ++k)
    EXPECT_NEAR(mean[k + 1] / count[k + 1] - mean[k] / count[k], 1, 0.2);
  round_widths(step.costs, &widths);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    stored += stored_width(widths, i) * weights[i] / all;
    EXPECT_LE(std::abs(width_of(widths.beta[i]) - stored_width(widths, i)), 1.0) << i;
  }
  EXPECT_LE(stored, target);
  EXPECT_GT(stored, target - 0.2);
}

TEST(LearnedWidths, ABudgetBelowTheLeastIsRefused) {
  LearnedWidths widths = widths_from(std::vector<int>(14, 4));
  EXPECT_THROW(round_widths(byte_costs(layout_of_two_layers(), 1.9), &widths), Error);
}

}  // namespace
}  // namespace crumb::quant::train

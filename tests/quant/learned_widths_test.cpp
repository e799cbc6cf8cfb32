// Learned widths alone, with a loss whose best split is known: sum_i w_i 4^-b_i.
#include "quant/train/learned_widths.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>

#include "models/errors.h"

namespace crumb::quant::train {
namespace {

std::vector<MatrixPart> parts_of_two_layers() {
  models::ModelConfig config;
  config.layers = 2;
  config.dim = 64;
  config.ffn = 128;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 32;
  return matrix_parts(parameter_layout(config));
}

std::vector<double> weights_of(const std::vector<MatrixPart>& parts) {
  std::vector<double> weights;
  for (const MatrixPart& part : parts) weights.push_back(static_cast<double>(part.N * part.K));
  return weights;
}

TEST(LearnedWidths, StartAtTheirMatricesWidths) {
  const std::vector<MatrixForm> forms = {{2}, {3}, {4}, {8}};
  const LearnedWidths widths = widths_from(forms);
  for (std::size_t i = 0; i < forms.size(); ++i) {
    EXPECT_NEAR(width_of(widths.beta[i]), forms[i].bits, 0.051);
    const RoundingForm now = rounding_form(forms[i], widths, i);
    EXPECT_EQ(now.form, forms[i]);
    EXPECT_EQ(now.log_factor, 0);
  }
  EXPECT_EQ(rounding_form({3}, {}, 0).form, MatrixForm{3});
}

TEST(LearnedWidths, CostsAreStraightBetweenLegalWidths) {
  const std::vector<MatrixPart> parts = parts_of_two_layers();
  const WidthCosts costs = byte_costs(parts, 3);
  EXPECT_EQ(costs.cost.size(), 14u);
  EXPECT_NEAR(cost_at(costs, 0, 2.5), 64 * 64 * 2.5 / 8, 1e-9);
  EXPECT_NEAR(cost_at(costs, 0, 6.0), 64 * 64 * 6.0 / 8, 1e-9);
  const std::vector<double> weights = weights_of(parts);
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  EXPECT_NEAR(costs.budget, all * 3 / 8, 1e-6);
  std::string text = R"({"budget": 50, "costs": {)";
  for (const MatrixPart& part : parts) text += '"' + part.name + R"(": [1, 2, 4, 12],)";
  text.back() = '}';
  const WidthCosts read = costs_from_json(text + "}", parts);
  EXPECT_NEAR(cost_at(read, 3, 5), 6, 1e-9);
  EXPECT_EQ(read.budget, 50);
  EXPECT_THROW(costs_from_json(R"({"budget": 50, "costs": {}})", parts), Error);
  EXPECT_THROW(costs_from_json("[]", parts), Error);
}

// Acceptance: within 0.05 of the target before rounding, not all equal, sensitive matrices higher.
TEST(LearnedWidths, FollowSensitivityUnderABudget) {
  const std::vector<MatrixPart> parts = parts_of_two_layers();
  const std::vector<double> weights = weights_of(parts);
  constexpr double target = 3;
  std::vector<double> need;  // of a weight: matrix i is 4^(i % 3) times as sensitive as the least
  for (std::size_t i = 0; i < weights.size(); ++i)
    need.push_back(1e-4 * std::pow(4.0, static_cast<double>(i % 3)));
  LearnedWidths widths = widths_from(std::vector<MatrixForm>(weights.size(), MatrixForm{4}));
  constexpr int64_t steps = 600;
  const WidthCosts costs = byte_costs(parts, target);
  for (int64_t t = 1; t <= steps; ++t) {
    const AdamStep step =
        adam_step({0.9, 0.95, 1e-8, 0}, t, 3e-2 * cosine_schedule(t, steps, 10, 0.02));
    std::vector<double> d_bits;
    for (std::size_t i = 0; i < weights.size(); ++i)
      d_bits.push_back(-2 * std::numbers::ln2 * need[i] * weights[i] *
                       std::pow(4.0, -width_of(widths.beta[i])));
    step_widths(step, costs, 10, d_bits, &widths);
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
  EXPECT_NEAR(cost_share(costs, widths), average / target, 1e-9);
  round_widths(costs, &widths);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const int bits = rounding_form({4}, widths, i).form.bits;
    stored += bits * weights[i] / all;
    EXPECT_LE(std::abs(width_of(widths.beta[i]) - bits), 1.0) << i;
  }
  EXPECT_LE(stored, target);
  EXPECT_GT(stored, target - 0.2);
}

TEST(LearnedWidths, ABudgetBelowTheLeastIsRefused) {
  LearnedWidths widths = widths_from(std::vector<MatrixForm>(14, MatrixForm{4}));
  EXPECT_THROW(round_widths(byte_costs(parts_of_two_layers(), 1.9), &widths), Error);
}

}  // namespace
}  // namespace crumb::quant::train

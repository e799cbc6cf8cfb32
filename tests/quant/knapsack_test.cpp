// The allocators' own solvers against COIN-OR's. A program of its own: Cbc brings a BLAS along.
#include <Cbc_C_Interface.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "quant/allocation.h"
#include "quant/matrix_widths.h"
#include "tests/quant/weights.h"

namespace crumb::quant {
namespace {

// max sum_i values_i x_i, sum_i costs_i x_i <= room, x in [0, 1] (Clp) or in {0, 1} (Cbc).
double knapsack_optimum(std::span<const double> values, std::span<const int64_t> costs,
                        int64_t room, bool integers) {
  const auto n = static_cast<int>(values.size());
  std::vector<int> starts, rows(values.size(), 0);
  std::vector<double> coefficients, lower(values.size(), 0), upper(values.size(), 1);
  for (int i = 0; i <= n; ++i) starts.push_back(i);
  for (const int64_t cost : costs) coefficients.push_back(static_cast<double>(cost));
  const double row_lower = 0, row_upper = static_cast<double>(room);
  Cbc_Model* model = Cbc_newModel();
  Cbc_setParameter(model, "log", "0");
  Cbc_loadProblem(model, n, 1, starts.data(), rows.data(), coefficients.data(), lower.data(),
                  upper.data(), values.data(), &row_lower, &row_upper);
  Cbc_setObjSense(model, -1);
  for (int i = 0; integers && i < n; ++i) Cbc_setInteger(model, i);
  Cbc_solve(model);
  const double best = Cbc_getObjValue(model);
  Cbc_deleteModel(model);
  return best;
}

TEST(Knapsack, TheLinearProgrammeIsClps) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::vector<double> values;
    std::vector<int64_t> costs;
    int64_t all = 0;
    for (const float v : random_weights(40, seed, 1.0f)) {
      values.push_back(0.1 + std::abs(static_cast<double>(v)));
      costs.push_back(64 * (1 + static_cast<int64_t>(std::abs(v) * 1e4f) % 37));
      all += costs.back();
    }
    const int64_t room = all * static_cast<int64_t>(seed) / 21;
    const auto x = fractional_knapsack(values, costs, room);
    double value = 0, cost = 0;
    int split = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      value += values[i] * x[i];
      cost += static_cast<double>(costs[i]) * x[i];
      split += x[i] > 0 && x[i] < 1;
    }
    EXPECT_LE(split, 1);
    EXPECT_LE(cost, static_cast<double>(room) + 1e-6);
    EXPECT_NEAR(value, knapsack_optimum(values, costs, room, false), 1e-9 * value);
  }
}

TEST(Knapsack, TheKnapsackIsCbcs) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    std::vector<double> values;
    std::vector<int64_t> costs;
    std::vector<Unit> units;
    double gain = 0;
    for (const float v : random_weights(25, seed, 1.0f)) {
      values.push_back(0.1 + std::abs(static_cast<double>(v)));
      costs.push_back(64 * (1 + static_cast<int64_t>(std::abs(v) * 1e4f) % 37));
      units.push_back({{{0, values.back()}, {costs.back(), 0}}});
      gain += values.back();
    }
    const int64_t room = std::accumulate(costs.begin(), costs.end(), int64_t{0}) / 3;
    EXPECT_NEAR(gain - allocate(units, room).loss, knapsack_optimum(values, costs, room, true),
                1e-9 * gain);
  }
}

}  // namespace
}  // namespace crumb::quant

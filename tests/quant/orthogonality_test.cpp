// OMPQ: orthogonality, importance, and plans on a tiny model. Its linear programme: knapsack_test.
#include "quant/orthogonality.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "models/errors.h"
#include "models/tensors.h"
#include "models/tiny_model.h"
#include "quant/blas.h"
#include "quant/matrix_widths.h"
#include "tests/quant/weights.h"

namespace crumb::quant {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

constexpr int64_t kN = 24, kP = 40;

double orm_of(const std::vector<float>& F, const std::vector<float>& G, int64_t p, int64_t q) {
  const std::vector<std::vector<float>> grams = {centred_gram(F, kN, p), centred_gram(G, kN, q)};
  return orthogonality_matrix(grams, 1)[1];
}

// The definition: <HKH, HLH> / (|HKH| |HLH|) with K = F F^T and H = I - 1/n, all in double.
double linear_cka(const std::vector<float>& F, const std::vector<float>& G, int64_t p, int64_t q) {
  const auto centred = [](const std::vector<float>& X, int64_t width) {
    std::vector<double> K(size_of(kN * kN));
    for (int64_t i = 0; i < kN; ++i)
      for (int64_t j = 0; j < kN; ++j)
        for (int64_t k = 0; k < width; ++k)
          K[size_of(i * kN + j)] += static_cast<double>(X[size_of(i * width + k)]) *
                                    static_cast<double>(X[size_of(j * width + k)]);
    std::vector<double> C(K.size());
    double all = 0;
    for (const double v : K) all += v / (kN * kN);
    for (int64_t i = 0; i < kN; ++i)
      for (int64_t j = 0; j < kN; ++j) {
        double row = 0, col = 0;
        for (int64_t k = 0; k < kN; ++k) {
          row += K[size_of(i * kN + k)] / kN;
          col += K[size_of(k * kN + j)] / kN;
        }
        C[size_of(i * kN + j)] = K[size_of(i * kN + j)] - row - col + all;
      }
    return C;
  };
  const auto a = centred(F, p), b = centred(G, q);
  const auto dot = [](const auto& x, const auto& y) {
    return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
  };
  return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

class Orm : public testing::Test {
 protected:
  void SetUp() override { load_blas(); }
};

TEST_F(Orm, IsLinearCka) {
  const auto F = random_weights(kN * kP, 1, 1.0f), G = random_weights(kN * 16, 2, 1.0f);
  EXPECT_NEAR(orm_of(F, G, kP, 16), linear_cka(F, G, kP, 16), 1e-5);
  EXPECT_NEAR(orm_of(F, F, kP, kP), 1, 1e-5);
  EXPECT_NEAR(orm_of(F, G, kP, 16), orm_of(G, F, 16, kP), 1e-7);
}

TEST_F(Orm, KnowsNoRotationScaleAndOffset) {
  const auto F = random_weights(kN * kP, 1, 1.0f), G = random_weights(kN * kP, 2, 1.0f);
  std::vector<float> turned = G;
  for (int64_t t = 0; t < kN; ++t)
    for (int64_t k = 0; k + 1 < kP; k += 2) {
      float &x = turned[size_of(t * kP + k)], &y = turned[size_of(t * kP + k + 1)];
      const float u = 0.6f * x - 0.8f * y;
      y = 0.8f * x + 0.6f * y;
      x = u;
    }
  for (int64_t t = 0; t < kN; ++t)
    for (int64_t k = 0; k < kP; ++k)
      turned[size_of(t * kP + k)] = 3 * turned[size_of(t * kP + k)] + 0.1f * static_cast<float>(k);
  EXPECT_NEAR(orm_of(F, G, kP, kP), orm_of(F, turned, kP, kP), 1e-5);
}

TEST_F(Orm, OfAConstantFunctionIsZero) {
  const std::vector<float> F = random_weights(kN * kP, 1, 1.0f), one(size_of(kN * 8), 2.5f);
  EXPECT_EQ(orm_of(F, one, kP, 8), 0);
}

TEST(Ompq, ImportanceFallsWithRedundancyWhateverItsScale) {
  const std::vector<double> gamma = {3, 1, 2}, wide = {300, 100, 200}, flat = {2, 2};
  const auto theta = ompq_importance(gamma, 2);
  EXPECT_EQ(theta[1], 1);
  EXPECT_NEAR(theta[0], std::exp(-2.0), 1e-12);
  EXPECT_EQ(theta, ompq_importance(wide, 2));
  EXPECT_EQ(ompq_importance(flat, 2), (std::vector<double>{1, 1}));
}

// A plan of every rule: under the budget by less than the smallest step, and the same for any
// number of threads.
TEST_F(Orm, EveryRuleMeetsTheBudgetWithAnyThreads) {
  models::TinyOptions tiny;
  tiny.layers = 4;
  const models::SourceModel source = models::tiny_model(tiny);
  for (const auto& [name, rule] : kWidthRules) {
    if (rule == WidthRule::kEmq) continue;  // emq_test
    SCOPED_TRACE(name);
    std::vector<std::vector<int>> plans;
    for (const int threads : {1, 3}) {
      QuantizeOptions options;
      options.linear.group = 32;
      options.threads = threads;
      CalibrationText text;
      text.windows.S = 80;
      for (int64_t i = 0; i < 3 * 80; ++i)
        text.windows.ids.push_back(static_cast<int32_t>(3 + (i * i) % 250));
      options.calibration = text;
      WidthRuleOptions how;
      how.rule = rule;
      const auto report = choose_by_rule(source, {4.0, 0}, how, &options, {});
      EXPECT_LE(report.bytes, report.budget);
      EXPECT_GT(report.bytes, report.budget - 64 * 64 / 8 - 64);
      int64_t planned = 0;
      for (const PlanRow& row : make_plan(source.config, options).rows)
        if (row.tensor.role == models::TensorRole::kLinear) planned += row.bytes;
      EXPECT_EQ(planned, report.bytes);
      plans.push_back(report.bits);
    }
    EXPECT_EQ(plans[0], plans[1]);
  }
}

TEST_F(Orm, ABudgetOutsideTheWidthsIsRefused) {
  const models::SourceModel source = models::tiny_model();
  for (const double bpw : {2.5, 9.0}) {
    QuantizeOptions options;
    options.linear.group = 32;
    WidthRuleOptions how;
    how.rule = WidthRule::kRandom;
    how.widths = {3, 4};
    EXPECT_THROW(choose_by_rule(source, {bpw, 0}, how, &options, {}), Error);
  }
}

}  // namespace
}  // namespace crumb::quant

#include "quant/widths.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "models/errors.h"
#include "models/tiny_model.h"
#include "quant/model_costs.h"
#include "quant/quantize.h"

namespace crumb::quant {
namespace {

// Losses c * 4^-bits of every strip.
MatrixCosts costs_of(const std::string& name, int64_t N, int64_t K, const std::vector<double>& c) {
  MatrixCosts costs;
  costs.name = name;
  costs.N = N;
  costs.K = K;
  for (std::size_t i = 0; i < kWidths.size(); ++i)
    for (const double strip : c) {
      costs.strips[i].push_back(strip * std::exp2(-2 * kWidths[i]));
      costs.columns[i].push_back(strip * std::exp2(-2 * kWidths[i]));
    }
  return costs;
}

Method row_method() {
  Method method;
  method.group = 0;
  return method;
}

TEST(Widths, StripsThatMatterGetMoreBits) {
  const std::vector<MatrixCosts> costs = {costs_of("a", 96, 64, {1, 1, 1}),
                                          costs_of("b", 70, 64, {1, 16, 16})};
  const UniformWidths uniform = uniform_widths(costs, row_method());
  EXPECT_EQ(uniform.bytes[1], 6 * (32 * 64 * 3 / 8 + 32 * 2));
  EXPECT_NEAR(uniform.loss[1], 36.0 / 64, 1e-12);
  const Widths bands = choose_widths(costs, row_method(), Granularity::kBands, uniform.bytes[1]);
  EXPECT_EQ(bands.bytes, uniform.bytes[1]);
  EXPECT_EQ(bands.bands.at("b"),
            (std::vector<models::Band>{{1, bands.bands.at("b")[0].bits}, {2, 4}}));
  EXPECT_LT(bands.loss, 0.7 * uniform.loss[1]);
  const Widths tensors = choose_widths(costs, row_method(), Granularity::kTensor, uniform.bytes[1]);
  EXPECT_EQ(tensors.bands.at("a"), (std::vector<models::Band>{{3, 2}}));
  EXPECT_EQ(tensors.bands.at("b"), (std::vector<models::Band>{{3, 4}}));
  EXPECT_GE(tensors.loss, bands.loss);
  EXPECT_THROW(choose_widths(costs, row_method(), Granularity::kBands, uniform.bytes[0] - 1),
               Error);
}

TEST(Widths, GainsAreThoseOfTheClosedForm) {
  const std::vector<MatrixCosts> costs = {costs_of("a", 64, 128, {4, 4}),
                                          costs_of("b", 64, 128, {1, 1})};
  const Gains gains = predicted_gains(costs);
  EXPECT_NEAR(gains.tensors, 2 / 2.5, 1e-12);
  EXPECT_NEAR(gains.strips, 2 / 2.5, 1e-12);
  EXPECT_NEAR(gains.columns, 2 / 2.5, 1e-12);
}

// Measured costs of a model, widths for a budget, and the file that comes of them.
TEST(Widths, FileOfAModelMeetsTheBudget) {
  const auto source = models::tiny_model();
  QuantizeOptions options;
  options.linear.rounding = Rounding::kLdlq;
  options.linear.group = 0;
  options.linear.rule = ScaleRule::kWeighted;
  options.linear.rotation = {32, 3};
  options.threads = 2;
  CalibrationText text;
  text.windows.S = 16;
  for (int64_t i = 0; i < 6 * 16; ++i)
    text.windows.ids.push_back(static_cast<int32_t>((i * 37 + i * i) % source.config.vocab));
  options.calibration = text;
  const auto costs = measure_model(source, options, {4, 1}, nullptr, {});
  ASSERT_EQ(costs.size(), 14u);
  for (const MatrixCosts& matrix : costs)
    for (std::size_t i = 1; i < kWidths.size(); ++i)
      for (std::size_t s = 0; s < matrix.strips[i].size(); ++s)
        EXPECT_LT(matrix.strips[i][s], matrix.strips[i - 1][s]) << matrix.name;
  const UniformWidths uniform = uniform_widths(costs, options.linear);
  const Widths widths = choose_widths(costs, options.linear, Granularity::kBands, uniform.bytes[1]);
  EXPECT_LE(widths.loss, uniform.loss[1]);
  options.bands = widths.bands;
  const Plan plan = make_plan(source.config, options);
  int64_t linear = 0;
  bool banded = false;
  for (const PlanRow& row : plan.rows) {
    if (row.tensor.role == models::TensorRole::kLinear) linear += row.bytes;
    banded = banded || !row.matrix.bands.empty();
  }
  EXPECT_TRUE(banded);
  EXPECT_EQ(linear, widths.bytes);
  EXPECT_LE(linear, uniform.bytes[1]);
  EXPECT_GT(static_cast<double>(linear), 0.97 * static_cast<double>(uniform.bytes[1]));
  const std::string path = std::filesystem::path(testing::TempDir()) / "crumb_widths.crumb";
  const auto report = quantize(source, options, path, {});
  EXPECT_EQ(static_cast<int64_t>(report.file_bytes), planned_file_bytes(source, options));
  const auto stored = plan_of(models::Checkpoint::open(path));
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    EXPECT_EQ(stored.rows[i].matrix.bits, plan.rows[i].matrix.bits);
    EXPECT_EQ(stored.rows[i].matrix.bands, plan.rows[i].matrix.bands);
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace crumb::quant

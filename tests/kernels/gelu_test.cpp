// GELU and layer normalisation against the exact ones.
#include "kernels/gelu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/layernorm.h"

namespace crumb::kernels {
namespace {

TEST(GeluErf, IsCloseToTheExactOne) {
  double worst = 0;
  std::vector<float> x;
  for (int i = -120000; i <= 120000; ++i) x.push_back(static_cast<float>(i) * 1e-4f);
  std::vector<float> y = x;
  gelu_erf(y.data(), static_cast<int64_t>(y.size()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = x[i], want = exact / 2 * (1 + std::erf(exact / std::sqrt(2.0)));
    worst = std::max(worst,
                     std::fabs(static_cast<double>(y[i]) - want) / std::max(1.0, std::fabs(exact)));
  }
  EXPECT_LT(worst, 4e-7);
}

TEST(GeluErf, ExtremesAndNaN) {
  float x[] = {0.0f, 1e30f, -1e30f, std::numeric_limits<float>::infinity(),
               std::numeric_limits<float>::quiet_NaN()};
  gelu_erf(x, 5);
  EXPECT_EQ(x[0], 0.0f);
  EXPECT_EQ(x[1], 1e30f);
  EXPECT_NEAR(static_cast<double>(x[2] / 1e30f), 0, 1e-6);
  EXPECT_EQ(x[3], std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(x[4]));
}

// A value's bits do not depend on where in the row it stands: a row may be cut between threads.
TEST(GeluErf, PartsAreAsTheWhole) {
  std::vector<float> whole;
  for (int i = 0; i < 77; ++i) whole.push_back(static_cast<float>(i) * 0.11f - 4.2f);
  std::vector<float> parts = whole;
  gelu_erf(whole.data(), 77);
  gelu_erf(parts.data(), 13);
  gelu_erf(parts.data() + 13, 64);
  EXPECT_EQ(parts, whole);
}

TEST(LayerNorm, IsTheExactOne) {
  for (const int64_t n : {1, 15, 16, 17, 48, 384, 1000}) {
    std::vector<float> x, weight, bias, y(static_cast<std::size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      x.push_back(static_cast<float>(i * 7919 % 1000) * 0.01f + 3);
      weight.push_back(1 + static_cast<float>(i % 5) * 0.1f);
      bias.push_back(static_cast<float>(i % 3) - 1);
    }
    layernorm(x.data(), weight.data(), bias.data(), n, 1e-6f, y.data());
    double mean = 0, variance = 0;
    for (const float value : x) mean += static_cast<double>(value) / static_cast<double>(n);
    for (const float value : x)
      variance += (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean) /
                  static_cast<double>(n);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = (static_cast<double>(x[i]) - mean) / std::sqrt(variance + 1e-6) *
                              static_cast<double>(weight[i]) +
                          static_cast<double>(bias[i]);
      EXPECT_NEAR(static_cast<double>(y[i]), want, 1e-5) << n;
    }
    layernorm(x.data(), weight.data(), bias.data(), n, 1e-6f, x.data());
    EXPECT_EQ(x, y) << "in place";
  }
}

}  // namespace
}  // namespace crumb::kernels

// The exponential all backends share, against std::exp in double.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/scalar_math.h"

namespace crumb::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Distance in units of the last place of the correctly rounded result.
double error_ulp(float x) {
  const double exact = std::exp(static_cast<double>(x));
  const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
  return std::fabs(static_cast<double>(exp_f32(x)) - exact) / ulp;
}

TEST(Exp, BelowOneUlpOverTheWholeRange) {
  double worst = 0.0;
  float at = 0.0f;
  for (uint32_t i = 0; i <= 4000000; ++i) {
    const float x = kExpLow + (kExpHigh - kExpLow) * (static_cast<float>(i) / 4000000.0f);
    if (x < kExpLow || x > kExpHigh) continue;
    const double error = error_ulp(x);
    if (error > worst) {
      worst = error;
      at = x;
    }
  }
  RecordProperty("worst_ulp", std::to_string(worst));
  EXPECT_LT(worst, 1.0) << "at " << at;
  EXPECT_GT(worst, 0.4) << "the measure itself is broken";
}

TEST(Exp, BelowOneUlpNearZero) {
  for (uint32_t bits = 0; bits < 0x3f800000u; bits += 12345) {
    const float x = std::bit_cast<float>(bits);
    EXPECT_LT(error_ulp(x), 1.0) << x;
    EXPECT_LT(error_ulp(-x), 1.0) << -x;
  }
  EXPECT_EQ(exp_f32(0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-0.0f), 1.0f);
}

TEST(Exp, Ends) {
  EXPECT_EQ(std::bit_cast<uint32_t>(exp_f32(-kInfinity)), 0u);
  EXPECT_EQ(exp_f32(std::nextafter(kExpLow, -kInfinity)), 0.0f);
  EXPECT_EQ(exp_f32(-1e30f), 0.0f);
  EXPECT_TRUE(std::isnormal(exp_f32(kExpLow)));
  EXPECT_TRUE(std::isfinite(exp_f32(kExpHigh)));
  EXPECT_EQ(exp_f32(std::nextafter(kExpHigh, kInfinity)), kInfinity);
  EXPECT_EQ(exp_f32(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(exp_f32(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace crumb::kernels

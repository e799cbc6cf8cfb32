#include "kernels/float16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>

namespace crumb::kernels {
namespace {

bool is_nan(uint16_t h) { return (h & 0x7fffu) > 0x7c00u; }

// The value by the definition of binary16.
double value_of(uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int mantissa = h & 0x3ff;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (h & 0x8000u) != 0 ? -magnitude : magnitude;
}

TEST(Float16, AllValuesGoThereAndBack) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<uint16_t>(i);
    const float x = f16_to_f32(h);
    if (is_nan(h)) {
      EXPECT_TRUE(std::isnan(x)) << i;
      EXPECT_EQ(f32_to_f16(x), h | 0x200u) << i;  // a signalling NaN comes back quiet
      continue;
    }
    if ((h & 0x7fffu) == 0x7c00u) {
      EXPECT_TRUE(std::isinf(x)) << i;
    } else {
      EXPECT_EQ(static_cast<double>(x), value_of(h)) << i;
    }
    EXPECT_EQ(f32_to_f16(x), h) << i;
  }
}

TEST(Float16, RoundsToNearestEven) {
  // Between neighbours h and h + 1: below the middle down, above it up, the middle to the even one.
  for (uint32_t h = 0; h < 0x7bffu; ++h) {
    const double low = value_of(static_cast<uint16_t>(h));
    const double high = value_of(static_cast<uint16_t>(h + 1));
    const auto middle = static_cast<float>((low + high) / 2);
    ASSERT_EQ(static_cast<double>(middle), (low + high) / 2);
    EXPECT_EQ(f32_to_f16(middle), h + (h & 1u));
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), h);
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 1e9f)), h + 1);
    EXPECT_EQ(f32_to_f16(-middle), (h + (h & 1u)) | 0x8000u);
  }
}

TEST(Float16, Overflow) {
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7bffu);
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bffu);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00u);
  EXPECT_EQ(f32_to_f16(-1e30f), 0xfc00u);
  EXPECT_EQ(f32_to_f16(0x1p-26f), 0u);
}

TEST(Bfloat16, IsTheTopHalf) {
  EXPECT_EQ(bf16_to_f32(0x3f80), 1.0f);
  EXPECT_EQ(bf16_to_f32(0xc0a0), -5.0f);
  EXPECT_TRUE(std::isnan(bf16_to_f32(0x7fc0)));
}

}  // namespace
}  // namespace crumb::kernels

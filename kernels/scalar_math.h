// The float sequences that every backend repeats operation by operation, so that all give the same
// bits: the 16-lane fold and the exponential.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace crumb::kernels {

inline constexpr int64_t kLanes = 16;

// 16 virtual lanes -> one value: lanes i += i+8, then +4, +2, +1.
inline float fold_lanes(float (&lanes)[kLanes]) noexcept {
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// exp(x) with an error below 1 ulp (largest seen: tests/kernels/exp_test.cpp).
//   n = round-to-nearest-even(x / ln 2), r = x - n ln 2 in two steps (ln 2 = high + low, high has
//   15 bits, so that n * high is exact), exp(r) ~ 1 + r + r^2 * polynomial(r), times 2^n.
// The polynomial is a minimax fit to (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2.
// Below kExpLow the result is 0 (it would soon be subnormal), above kExpHigh infinity; NaN stays
// NaN.
inline constexpr float kExpLow = -87.3f;
inline constexpr float kExpHigh = 88.72283f;
inline constexpr float kExpInverseLn2 = 0x1.715476p+0f;
inline constexpr float kExpLn2High = 0x1.62e4p-1f;
inline constexpr float kExpLn2Low = 0x1.7f7d1cp-20f;
inline constexpr float kExpCoefficients[5] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558f2p-5f,
                                              0x1.123a20p-7f, 0x1.6a23d0p-10f};

inline float exp_f32(float x) noexcept {
  if (x != x) return x;
  if (x < kExpLow) return 0.0f;
  if (x > kExpHigh) return std::numeric_limits<float>::infinity();
  const float n = std::nearbyint(x * kExpInverseLn2);
  float r = std::fma(n, -kExpLn2High, x);
  r = std::fma(n, -kExpLn2Low, r);
  float p = kExpCoefficients[4];
  for (int i = 3; i >= 0; --i) p = std::fma(p, r, kExpCoefficients[i]);
  const float y = std::fma(r * r, p, r) + 1.0f;
  // n in [-126, 128] goes straight into the exponent field: the result is normal over the range.
  const uint32_t shift = static_cast<uint32_t>(static_cast<int32_t>(n)) << 23;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(y) + shift);
}

// Of gelu_mul, Backend.
inline constexpr float kGeluTwice = 1.5957691216057308f;  // 2 sqrt(2 / pi)
inline constexpr float kGeluCube = 0.044715f;

}  // namespace crumb::kernels

// Gradients against finite differences of float functions.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tests/quant/weights.h"

namespace crumb::quant {

inline double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// Compares dL/dx with the five-point difference of loss() along directions: three random ones over
// all of x and six over a single value each. x is changed for the calls and restored. Errors are
// measured against |gradient| |direction|, so that a wrong value shows wherever it stands.
inline void expect_gradient(const std::string& name, std::span<float> x,
                            std::span<const float> gradient, const std::function<double()>& loss,
                            double tolerance = 5e-4, float step = 1e-2f) {
  ASSERT_EQ(x.size(), gradient.size()) << name;
  const std::vector<float> start(x.begin(), x.end());
  const double length = std::sqrt(dot(gradient, gradient));
  ASSERT_GT(length, 0) << name;
  for (uint64_t trial = 0; trial < 9; ++trial) {
    auto direction = random_weights(std::ssize(x), 100 + trial, 1.0f);
    if (trial >= 3) {
      std::fill(direction.begin(), direction.end(), 0.0f);
      direction[(trial * 7919) % x.size()] = 1.0f;
    }
    const auto norm = static_cast<float>(std::sqrt(dot(direction, direction)));
    // So long that every value moves by `step` on average.
    const double scale = trial < 3 ? std::sqrt(static_cast<double>(x.size())) : 1.0;
    for (float& v : direction) v *= static_cast<float>(scale) / norm;
    const auto at = [&](float h) {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = start[i] + h * direction[i];
      return loss();
    };
    const double slope =
        (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12.0 * step);
    std::copy(start.begin(), start.end(), x.begin());
    EXPECT_NEAR(slope, dot(gradient, direction), tolerance * length) << name << ", trial " << trial;
  }
}

}  // namespace crumb::quant

#include "models/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace crumb::models {

RopeScaling linear_scaling(int64_t head_dim, double factor) {
  RopeScaling scaling;
  scaling.factors.assign(static_cast<std::size_t>(head_dim / 2), static_cast<float>(factor));
  return scaling;
}

RopeScaling llama3_scaling(int64_t head_dim, double theta, double factor, double low_factor,
                           double high_factor, double original) {
  RopeScaling scaling;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double frequency =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double wavelength = 2 * std::numbers::pi / frequency;
    double divisor = 1;
    if (wavelength > original / low_factor) {
      divisor = factor;
    } else if (wavelength >= original / high_factor) {
      const double smooth = (original / wavelength - low_factor) / (high_factor - low_factor);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    scaling.factors.push_back(static_cast<float>(divisor));
  }
  return scaling;
}

RopeScaling yarn_scaling(int64_t head_dim, const Yarn& yarn) {
  const auto Dh = static_cast<double>(head_dim);
  // The pair that turns `turns` times in the original context.
  const auto pair_of = [&](double turns) {
    return Dh * std::log(yarn.original / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(yarn.theta));
  };
  const double low = std::max(std::floor(pair_of(yarn.beta_fast)), 0.0);
  double high = std::min(std::ceil(pair_of(yarn.beta_slow)), Dh - 1);
  if (low == high) high += 0.001;
  RopeScaling scaling;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    scaling.factors.push_back(static_cast<float>(1 / (stretched / yarn.factor + (1 - stretched))));
  }
  scaling.magnitude = static_cast<float>(yarn.attention_factor != 0 ? yarn.attention_factor
                                         : yarn.factor > 1 ? 0.1 * std::log(yarn.factor) + 1
                                                           : 1.0);
  return scaling;
}

}  // namespace crumb::models

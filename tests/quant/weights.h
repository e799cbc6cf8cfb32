// Seeded weights for tests, the same with every standard library.
#pragma once
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace crumb::quant {

// About normal (sum of 12 uniforms) times `scale`; every 97th value eight times as large.
inline std::vector<float> random_weights(int64_t n, uint64_t seed, float scale = 0.1f) {
  std::mt19937_64 bits(seed);
  std::vector<float> w(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < w.size(); ++i) {
    double sum = -6;
    for (int j = 0; j < 12; ++j) sum += static_cast<double>(bits() >> 11) * 0x1p-53;
    w[i] = static_cast<float>(sum) * scale * (i % 97 == 96 ? 8.0f : 1.0f);
  }
  return w;
}

}  // namespace crumb::quant

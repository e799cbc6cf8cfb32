// Correlated inputs for tests: second moments like those of a transformer's activations.
#pragma once
#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "tests/quant/weights.h"

namespace crumb::quant {

// E[x x^T] [K, K] of x = spread o (A z + b): `rank` shared directions A and as much noise b of its
// own in every column; spread is 1, and `outlier` in every 37th column.
inline std::vector<double> random_hessian(int64_t K, int64_t rank, uint64_t seed,
                                          double outlier = 1) {
  const auto a = random_weights(K * rank, seed, 1.0f);
  const auto spread = [&](int64_t k) { return k % 37 == 5 ? outlier : 1.0; };
  std::vector<double> H(static_cast<std::size_t>(K * K));
  for (int64_t i = 0; i < K; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double sum = i == j ? 0.3 : 0.0;
      for (int64_t r = 0; r < rank; ++r)
        sum += static_cast<double>(a[static_cast<std::size_t>(i * rank + r)]) *
               a[static_cast<std::size_t>(j * rank + r)] / static_cast<double>(rank);
      H[static_cast<std::size_t>(i * K + j)] = H[static_cast<std::size_t>(j * K + i)] =
          sum * spread(i) * spread(j);
    }
  return H;
}

// tr(E H E^T), as it is written.
inline double slow_proxy(std::span<const float> w, std::span<const float> rounded, int64_t N,
                         std::span<const double> H, int64_t K) {
  double sum = 0;
  for (int64_t n = 0; n < N; ++n)
    for (int64_t i = 0; i < K; ++i)
      for (int64_t j = 0; j < K; ++j) {
        const auto a = static_cast<std::size_t>(n * K + i);
        const auto b = static_cast<std::size_t>(n * K + j);
        sum += (static_cast<double>(w[a]) - rounded[a]) * H[static_cast<std::size_t>(i * K + j)] *
               (static_cast<double>(w[b]) - rounded[b]);
      }
  return sum;
}

}  // namespace crumb::quant

#include "quant/train/muon.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "quant/train/adam.h"
#include "quant/train/ops.h"

namespace crumb::quant::train {
namespace {

std::vector<float> transposed(std::span<const float> x, int64_t N, int64_t K) {
  std::vector<float> y(x.size());
  for (int64_t n = 0; n < N; ++n)
    for (int64_t k = 0; k < K; ++k)
      y[static_cast<std::size_t>(k * N + n)] = x[static_cast<std::size_t>(n * K + k)];
  return y;
}

// y = p * x + q * z, element by element.
void combine(float p, std::span<const float> x, float q, std::span<const float> z,
             std::span<float> y) {
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = p * x[i] + q * z[i];
}

}  // namespace

float muon_length(const MuonStep& step, int64_t N, int64_t K) {
  return step.rate * kMuonRms * std::sqrt(static_cast<float>(std::max(N, K)));
}

void orthogonalise(std::span<float> x, int64_t N, int64_t K) {
  assert(std::ssize(x) == N * K);
  const double norm = std::sqrt(square_sum(x));
  if (norm == 0) return;
  // The products X X^T are small if X is wide.
  if (N > K) {
    std::vector<float> wide = transposed(x, N, K);
    orthogonalise(wide, K, N);
    const std::vector<float> tall = transposed(wide, K, N);
    std::copy(tall.begin(), tall.end(), x.begin());
    return;
  }
  const auto factor = static_cast<float>(1 / (norm * (1.0 + static_cast<double>(kMuonMargin))));
  for (float& v : x) v *= factor;
  std::vector<float> A(static_cast<std::size_t>(N * N)), square(A.size()), BX(x.size());
  for (const NewtonSchulz& s : kNewtonSchulz) {
    linear(x, x, {}, K, A);       // X X^T
    linear(A, A, {}, N, square);  // A A^T = A^2
    combine(s.b, A, s.c, square, A);
    std::fill(BX.begin(), BX.end(), 0.0f);
    linear_backward(x, x, K, A, {BX, {}, {}});
    combine(s.a, x, 1.0f, BX, x);
  }
}

void muon(const MuonStep& step, std::span<const float> g, float gradient_factor, int64_t N,
          int64_t K, std::span<float> w, std::span<float> mean) {
  assert(std::ssize(g) == N * K && w.size() == g.size() && mean.size() == g.size());
  std::vector<float> u(g.size());
  for (std::size_t i = 0; i < g.size(); ++i) {
    const float x = g[i] * gradient_factor;
    mean[i] = step.momentum * mean[i] + x;
    u[i] = x + step.momentum * mean[i];
  }
  orthogonalise(u, N, K);
  combine(1.0f, w, -muon_length(step, N, K), u, w);
}

}  // namespace crumb::quant::train

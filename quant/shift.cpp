#include "quant/shift.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "models/errors.h"
#include "quant/linalg.h"
#include "quant/parallel.h"

namespace crumb::quant {

ShiftFactor shift_factor(std::span<const double> H, int64_t K, const std::string& name,
                         int threads) {
  assert(std::ssize(H) == K * K);
  ShiftFactor factor;
  factor.K = K;
  double mean = 0;
  for (int64_t k = 0; k < K; ++k) mean += H[static_cast<std::size_t>(k * K + k)];
  mean /= static_cast<double>(K);
  if (mean == 0) return factor;
  for (const double rung : kDampingLadder) {
    if (rung < kShiftDamping) continue;
    factor.R.assign(H.begin(), H.end());
    for (int64_t k = 0; k < K; ++k) factor.R[static_cast<std::size_t>(k * K + k)] += rung * mean;
    factor.damping = rung;
    if (upper_cholesky(factor.R, K, rung * mean / 2, threads)) return factor;
  }
  throw Error(ExitCode::kNumeric,
              "second moment is not positive (" + name +
                  ": expected positive pivots at damping <= 1, found none)",
              "the calibration run met values that are not finite, or H is not symmetric");
}

std::vector<float> shifted_target(std::span<const float> w, const ShiftFactor& factor,
                                  const ShiftMoments& moments, const BlockFit& fit, int threads) {
  const int64_t K = factor.K, N = std::ssize(w) / K;
  std::vector<float> target(w.begin(), w.end());
  if (factor.R.empty() || (moments.inputs.empty() && moments.residual.empty())) return target;
  use_one_blas_thread();
  constexpr int64_t kRows = 64;
  parallel_rows((N + kRows - 1) / kRows, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kRows, rows = std::min(kRows, N - first);
      const auto at = static_cast<std::size_t>(first * K),
                 size = static_cast<std::size_t>(rows * K);
      std::vector<double> sums(size);
      if (!moments.residual.empty())
        for (std::size_t i = 0; i < size; ++i) sums[i] = fit.residual * moments.residual[at + i];
      if (!moments.inputs.empty()) {
        const std::vector<double> tile_w(w.begin() + first * K, w.begin() + (first + rows) * K);
        gemm({rows, K, K}, fit.shift, tile_w.data(), K, moments.inputs.data(), K, 1.0, sums.data(),
             K);
      }
      solve_right(factor.R, K, sums, rows);
      for (std::size_t i = 0; i < size; ++i) target[at + i] += static_cast<float>(sums[i]);
    }
  });
  return target;
}

}  // namespace crumb::quant

// Pseudo-noise in place of rounding (NIPQ, CVPR 2023): while noise is on, a weight w on the step
// Delta of a grid of b bits is, with eps uniform in [-1/2, 1/2) for every weight and step,
//   y = w + eps Delta        where w lies between the outermost levels,
//   y = the outermost level  where it does not (it is truncated),
// a function of w, of the truncation and of b that has true gradients: no straight-through
// estimator. b is any real number, so widths can be learned (learned_widths.h).
//
// One scale a row. The log scale a is that of a step at `scale_bits`, and what is learned through
// it is the truncation alpha, the grid's lower end, which b does not move: with z(b) the grid's
// zero point (seq (2^b - 1) / 2, lsq 2^(b-1)),
//   alpha = exp(a) z(scale_bits),  Delta = alpha / z(b),
// and the outermost levels are -alpha and alpha (lsq: alpha - Delta). With e = eps Delta inside, 0
// outside (lsq: -Delta above), and G = dL/dy:
//   dL/dw = G inside, 0 outside;  dL/da = sum_j G_j (e_j inside, y_j outside);
//   dL/db = -z'(b) / z(b) sum_j G_j e_j.
// Deviations from the paper: eps is uniform and not drawn from a histogram of the true errors (its
// section 6.3 finds them comparable); the grids are Crumb's; scales are by row.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/layout.h"

namespace crumb::quant::train {

// eps of number `index` of a step, [-1/2, 1/2), a multiple of 2^-24: the same on every device, so
// nothing of it is stored. `seed` is noise_seed()'s.
float noise(uint64_t seed, uint64_t index);
// Of one step of a run.
uint64_t noise_seed(uint64_t run_seed, int64_t step);

// One matrix, rows of K.
struct NoisyMatrix {
  std::span<const float> master, log_scale;  // [N, K], [N]
  int64_t K = 0;
  kernels::Grid grid = kernels::Grid::kSeq;  // not kAsym
  int scale_bits = 2;
  double bits = 2;     // b
  uint64_t seed = 0;   // of the step
  uint64_t first = 0;  // number of the first weight's eps; the others follow
};

// Delta and alpha where exp(a) is 1, and -z'(b) / z(b).
struct NoiseSteps {
  double step = 0, alpha = 0, d_bits = 0;
};
NoiseSteps noise_steps(const NoisyMatrix& m);

// y [N, K].
void noisy_weights(const NoisyMatrix& m, std::span<float> y);
// From G [N, K]: writes d_master [N, K] (may be G) and d_log_scale [N]; returns dL/db.
double noisy_weights_backward(const NoisyMatrix& m, std::span<const float> G,
                              std::span<float> d_master, std::span<float> d_log_scale);

}  // namespace crumb::quant::train

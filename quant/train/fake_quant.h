// Fake quantization with a straight-through estimator: a float master whose nearest codes are the
// weights of the forward pass, on learned scales.
//   q_j = nearest code of w_j on the scale s,   w^_j = s (q_j - z),   s = binary16(exp(a))
// on the grids of quant/grid.h: SEQ (ParetoQ, arXiv:2502.02631), LSQ (arXiv:1902.08153), asym (as
// in EfficientQAT, arXiv:2407.11062, with a fixed zero point). s is the scale as stored, so what is
// trained is exactly what is exported.
//
// Backward from G = dL/dW^, with the mask M_j = 1 where w_j lies in a cell of the grid, i.e. within
// half a step of a level, and 0 where it is clipped (SEQ: |w| < alpha = 2^(bits-1) s):
//   dL/dw_j = G_j M_j,          dL/da = s dL/ds = sum_j G_j (w^_j - M_j w_j)   over the scale's
// group, the gradients of the surrogate in which q_j - w_j / s is a constant inside the cells and
// q_j outside. Hence for every group, exactly:  sum_j dL/dw_j w_j + dL/da = sum_j G_j w^_j.
// Two deviations: the scale is learned as a = log s, and gradients are not multiplied by LSQ's
// 1 / sqrt(n Qp), which Adam would cancel.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "quant/rounded.h"

namespace crumb::quant::train {

struct FakeQuant {
  Rounded rounded;               // form, zeros; codes and scales of the last fake_quantize()
  std::vector<float> master;     // [N, K]
  std::vector<float> log_scale;  // [N, groups]; of no meaning where the scale is 0
};

// Part of a step that a master keeps from the borders of its cell, so that the first steps of an
// optimiser do not undo the codes it starts from.
inline constexpr float kCellMargin = 0.05f;

// Starts from given codes: each master is w [N, K] moved into the cell of its code in `start`
// (finite at both ends of the grid), so that fake_quantize() gives `start` again.
FakeQuant fake_quant_from(std::span<const float> w, Rounded start);

// Scales and codes of masters and log scales as they are, and w_hat [N, K]. A scale that is 0 (a
// group of zeros) stays 0. Deterministic, independent of the number of threads.
void fake_quantize(FakeQuant* quant, std::span<float> w_hat, int threads = 0);

// From G [N, K], after fake_quantize(): writes (does not add) d_master [N, K], which may be G, and
// d_log_scale [N, groups].
void fake_quantize_backward(const FakeQuant& quant, std::span<const float> G,
                            std::span<float> d_master, std::span<float> d_log_scale,
                            int threads = 0);

}  // namespace crumb::quant::train

// Quantized inputs of a block's linears (the activation side of NIPQ): one truncation alpha for
// each of the four inputs of every block, the same for all tokens, learned through a = log alpha. A
// symmetric grid with a level at 0 and at both ends: n = 2^(bits-1) - 1, Delta = alpha / n.
//   noise on:   y = x + eps Delta between -alpha and alpha, the nearer of the two beyond
//   noise off:  y = Delta round(x / Delta), truncated alike; gradients straight through
// With e = y - x inside and G = dL/dy, for both (exactly so for noise):
//   dL/dx = G inside, 0 outside;  dL/da = sum_j G_j (e_j inside, y_j outside).
// The engine quantizes inputs by token as they come and has no place for these truncations: they
// say what a student loses with static ones, and train it for them.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/train/adam.h"

namespace crumb::quant::train {

// One input in one step.
struct InputQuant {
  int bits = 8;
  float log_alpha = 0;
  bool noisy = false;
  uint64_t seed = 0, first = 0;  // noise.h; of the first value
};
void quantize_input(const InputQuant& quant, std::span<const float> x, std::span<float> y);
// In place dL/dy -> dL/dx; returns dL/da.
double quantize_input_backward(const InputQuant& quant, std::span<const float> x,
                               std::span<float> d);

// Of the ratios 2^(-k / 4), k = 0..20, of the largest |x| the one whose rounding errs least in the
// mean square, as a logarithm.
float fitted_log_alpha(std::span<const float> x, int bits);

// Of all blocks, four each in LinearInput's order; empty if inputs are not quantized.
struct LearnedInputs {
  int bits = 0;
  std::vector<float> log_alpha, mean, square;
  bool operator==(const LearnedInputs&) const = default;
};
// d_log_alpha: dL/da of each.
void step_inputs(const AdamStep& step, std::span<const double> d_log_alpha, LearnedInputs* inputs);
// Input `input` of a block whose values are numbered from `token` tokens of `width` on.
InputQuant input_quant(const LearnedInputs& inputs, int64_t layer, std::size_t input, bool noisy,
                       uint64_t seed, int64_t token, int64_t width);

}  // namespace crumb::quant::train

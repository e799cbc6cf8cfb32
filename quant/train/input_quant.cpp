#include "quant/train/input_quant.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "quant/train/noise.h"

namespace crumb::quant::train {
namespace {

struct Levels {
  float alpha, step;
  explicit Levels(const InputQuant& q)
      : alpha(std::exp(q.log_alpha)), step(alpha / static_cast<float>((1 << (q.bits - 1)) - 1)) {}
  bool inside(float x) const { return x > -alpha && x < alpha; }
  float at(const InputQuant& q, float x, std::size_t i) const {
    if (!inside(x)) return x < 0 ? -alpha : alpha;
    return q.noisy ? x + step * noise(q.seed, q.first + i) : step * std::nearbyint(x / step);
  }
};

}  // namespace

void quantize_input(const InputQuant& quant, std::span<const float> x, std::span<float> y) {
  assert(x.size() == y.size());
  const Levels levels(quant);
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = levels.at(quant, x[i], i);
}

double quantize_input_backward(const InputQuant& quant, std::span<const float> x,
                               std::span<float> d) {
  assert(x.size() == d.size());
  const Levels levels(quant);
  double pull = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float y = levels.at(quant, x[i], i);
    const bool inside = levels.inside(x[i]);
    pull += static_cast<double>(d[i]) * static_cast<double>(inside ? y - x[i] : y);
    if (!inside) d[i] = 0;
  }
  return pull;
}

float fitted_log_alpha(std::span<const float> x, int bits) {
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::abs(v));
  if (largest == 0) return 0;
  float best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int k = 0; k <= 20; ++k) {
    InputQuant quant;
    quant.bits = bits;
    quant.log_alpha = std::log(largest * std::exp2(-0.25f * static_cast<float>(k)));
    const Levels levels(quant);
    double error = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto e = static_cast<double>(levels.at(quant, x[i], i) - x[i]);
      error += e * e;
    }
    if (error >= least) continue;
    least = error;
    best = quant.log_alpha;
  }
  return best;
}

void step_inputs(const AdamStep& step, std::span<const double> d_log_alpha, LearnedInputs* inputs) {
  const std::vector<float> gradient(d_log_alpha.begin(), d_log_alpha.end());
  adam(step, gradient, 1.0f, inputs->log_alpha, inputs->mean, inputs->square);
}

InputQuant input_quant(const LearnedInputs& inputs, int64_t layer, std::size_t input, bool noisy,
                       uint64_t seed, int64_t token, int64_t width) {
  const auto number = static_cast<uint64_t>(layer * 4) + input;
  // Apart from each other's numbers and from those of weights.
  const uint64_t first = (number + 1) << 40;
  return {inputs.bits, inputs.log_alpha[number], noisy, seed,
          first + static_cast<uint64_t>(token * width)};
}

}  // namespace crumb::quant::train

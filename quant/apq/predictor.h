// APQ's predictor of quality from a subnet's codes (arXiv:2006.08509, section 3.2): three hidden
// layers over the architecture, and, for rounded subnets, a linear branch of the widths added to
// the first hidden layer behind its ReLU:
//   h1 = relu(W1 a + b1) [+ Wq w + bq],  h2 = relu(W2 h1 + b2),  h3 = relu(W3 h2 + b3),  y = w4 h3.
// Trained on float subnets first; all weights are then the start of the one for rounded subnets.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace crumb::quant::apq {

// One subnet: codes of quant/apq/space.h (no widths: not rounded), and what it was measured to be.
struct Example {
  std::vector<float> architecture, widths;
  double target = 0;
};

struct FitOptions {
  int steps = 600;       // over all examples at once
  double rate = 3e-3;    // Adam's, falling to a tenth by a cosine
  double decay = 1e-2;   // AdamW's weight decay
  int64_t hidden = 128;  // units of a layer, where a predictor is made
};

class Predictor {
 public:
  // Weights by He's rule, Wq zero; the same for a seed everywhere. `hidden` units a layer.
  Predictor(int64_t architecture, int64_t widths, int64_t hidden, uint64_t seed);

  // Least squares of the standardised targets; where examples have widths their branch learns too.
  // From the weights as they are. One thread; deterministic on a machine.
  void fit(std::span<const Example> examples, const FitOptions& options);
  // In the units of the last fit's targets.
  std::vector<double> predict(std::span<const Example> examples) const;

 private:
  struct Activations;
  void forward(std::span<const Example> examples, Activations& a) const;

  int64_t n_, m_, h_;     // codes, codes of widths, hidden
  std::vector<float> w_;  // all parameters
  double mean_ = 0, deviation_ = 1;
};

// Kendall's tau-b; 0 if one side is constant.
double kendall(std::span<const double> x, std::span<const double> y);

}  // namespace crumb::quant::apq

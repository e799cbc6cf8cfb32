// RoPE scaling as one number a frequency: the frequency theta^(-2i/Dh) of pair i is divided by
// factors[i], and cosines and sines are multiplied by `magnitude`.
#pragma once
#include <cstdint>
#include <vector>

namespace crumb::models {

struct RopeScaling {
  std::vector<float> factors;  // [Dh / 2], empty: all 1
  float magnitude = 1;
};

// Positions divided by `factor` (Chen et al., "Extending context window", 2023).
RopeScaling linear_scaling(int64_t head_dim, double factor);

// Llama 3.1: wavelengths above original / low_factor are stretched by `factor`, those below
// original / high_factor are not, between them the frequencies are interpolated.
RopeScaling llama3_scaling(int64_t head_dim, double theta, double factor, double low_factor,
                           double high_factor, double original);

// YaRN (Peng et al., 2023): pairs that turn more than beta_fast times in the original context stay,
// those below beta_slow are stretched by `factor`, a ramp over i between; magnitude
// attention_factor, or 0.1 ln(factor) + 1 if that is 0.
struct Yarn {
  double theta, factor, original;
  double beta_fast = 32, beta_slow = 1, attention_factor = 0;
};
RopeScaling yarn_scaling(int64_t head_dim, const Yarn& yarn);

}  // namespace crumb::models

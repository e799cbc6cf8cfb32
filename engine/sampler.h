// Sampler chain: penalties -> top-k -> top-p -> min-p -> temperature -> draw. temperature 0 is argmax,
// the lowest id on ties.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/config.h"

namespace crumb {

struct SamplingOptions {
  float temperature = 0.8f;
  int64_t top_k = 40;         // 0: off
  float top_p = 0.95f;        // 1: off
  float min_p = 0.05f;        // 0: off
  float repeat_penalty = 1.0f;  // 1: off
  int64_t repeat_last_n = 64;   // -1: whole context
  float presence_penalty = 0, frequency_penalty = 0;
  uint64_t seed = 0;
};
// The built-in defaults above, overridden by what the model's file suggests.
SamplingOptions default_sampling(const models::GenerationDefaults& model);
// Throws Error(kUsage) naming the field and its range.
void validate(const SamplingOptions& options);

// Counter-based generator (Philox4x32-10): value i of a seed does not depend on how it is reached.
double uniform(uint64_t seed, uint64_t index);  // [0, 1)

// Holds scratch of vocabulary size: no allocation in sample().
class Sampler {
 public:
  Sampler(const SamplingOptions& options, int64_t vocab);
  // `history`: the tokens so far, newest last. Draw number `step` uses uniform(seed, step).
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history);
  const SamplingOptions& options() const { return options_; }

 private:
  SamplingOptions options_;
  uint64_t step_ = 0;
  std::vector<float> weight_;
  std::vector<int32_t> candidates_;
};

}  // namespace crumb

// Sampler chain: biases -> penalties -> top-k -> top-p -> min-p -> temperature -> draw. temperature
// 0 is argmax, the lowest id on ties.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "engine/logit_blocks.h"
#include "engine/token_filter.h"
#include "models/config.h"

namespace crumb {

// Added to the logit of one token before anything else.
struct LogitBias {
  int32_t id = 0;
  float bias = 0;
};

struct SamplingOptions {
  float temperature = 0.8f;
  int64_t top_k = 40;           // 0: off
  float top_p = 0.95f;          // 1: off
  float min_p = 0.05f;          // 0: off
  float repeat_penalty = 1.0f;  // 1: off
  int64_t repeat_last_n = 64;   // -1: whole context
  float presence_penalty = 0, frequency_penalty = 0;
  std::vector<LogitBias> bias;  // one of a token twice adds up
  uint64_t seed = 0;
};
// The built-in defaults above, overridden by what the model's file suggests.
SamplingOptions default_sampling(const models::GenerationDefaults& model);
// Throws Error(kUsage) naming the field and its range.
void validate(const SamplingOptions& options);

// Holds scratch of vocabulary size: no allocation in sample(). Draw number i of a sampler uses
// uniform(seed, i) of engine/rng.h.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, int64_t vocab);
  // As new, with other options; keeps the scratch.
  void restart(const SamplingOptions& options);
  // logits [V], finite; `history`: the tokens so far, newest last; block_max: Session::block_max()
  // of these logits, or empty (then it is found here). Blocks that cannot hold a candidate are
  // skipped.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history,
                 std::span<const float> block_max = {});
  // The same over what the filter allows, as if all else had no probability; -1 if that is nothing.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history,
                 std::span<const float> block_max, TokenFilter& filter);
  const SamplingOptions& options() const { return options_; }

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  static bool better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  }
  bool edits() const;
  bool penalises() const;
  void penalise(std::span<const int32_t> history);
  int32_t best() const;
  void keep_top_k(std::size_t k);
  void keep_all_above_min_p();
  void prepare(std::span<const float> logits, std::span<const int32_t> history,
               std::span<const float> block_max);
  void keep_allowed(TokenFilter& filter);
  int32_t draw(double total);

  SamplingOptions options_;
  uint64_t step_ = 0;
  std::span<const float> logits_;      // [V], the caller's, or the edited copy
  std::vector<float> edited_;          // [V]
  std::vector<float> block_max_;       // [V / kLogitBlock, rounded up], of logits_
  std::vector<int32_t> count_;         // [V], occurrences in the window; zero between calls
  std::vector<Candidate> candidates_;  // capacity V
  std::vector<Candidate> heap_;        // with a filter: all tokens, likeliest first
  std::vector<int32_t> allowed_;       // with a filter: what it lists
};

}  // namespace crumb

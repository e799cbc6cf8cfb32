// Steps of an adapter's training on the CPU: cross entropy of answers, the decoder frozen but for
// its low-rank changes.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "models/source.h"
#include "quant/train/adam.h"
#include "quant/train/adapter.h"

namespace crumb::quant::train {

// One window of S tokens. Rows of an image stand in place of the tokens [image_at, image_at + R).
struct AdapterSample {
  std::span<const int32_t> ids;     // [S]
  std::span<const uint8_t> scored;  // [S]: 1 where the token is to be predicted from those before
  std::span<const float> features;  // [R, F]; empty: text alone
  int64_t image_at = 0;
};

struct AdapterReport {
  double loss = 0;     // nats a scored token
  double correct = 0;  // share of scored tokens that are the most likely one
  int64_t tokens = 0;  // scored
  double gradient_norm = 0;
};

class AdapterTrainer {
 public:
  // `decoder` is read once. `start` has layout.size values. threads 0: all; results are the same.
  // Throws what reading throws, Error(kUsage) for a model whose blocks are no plain ones.
  AdapterTrainer(const models::SourceModel& decoder, AdapterLayout layout, std::vector<float> start,
                 int64_t S, int threads);
  ~AdapterTrainer();

  // One AdamW step on the mean loss over all scored tokens; `projector` for W1, b1, W2, b2,
  // `low_rank` for A and B, whose gradients are clipped together. Throws Error(kUsage) for samples
  // of another length, without a scored token, ids outside the vocabulary, rows that do not fit;
  // kNumeric for a loss that is not finite.
  AdapterReport step(std::span<const AdapterSample> samples, const AdamStep& projector,
                     const AdamStep& low_rank, double gradient_limit);
  AdapterReport evaluate(std::span<const AdapterSample> samples) const;
  // dL/d(parameters) without a step, for tests.
  std::vector<float> gradient(std::span<const AdapterSample> samples) const;

  const std::vector<float>& parameters() const;
  void set_parameters(std::vector<float> parameters);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::quant::train

// Steps of an adapter's training, wherever it runs: cross entropy of answers, the decoder frozen
// but for its low-rank changes. cuda/cuda_adapter.h on a GPU.
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

// In AdapterLayout's order.
struct AdapterState {
  std::vector<float> parameters, mean, square;
};

class AdapterTrainer {
 public:
  virtual ~AdapterTrainer() = default;
  // One AdamW step on the mean loss over all scored tokens; `projector` for W1, b1, W2, b2,
  // `low_rank` for A and B, whose gradients are clipped together. Throws Error(kUsage) for what
  // require_lawful() refuses, kNumeric for a loss that is not finite.
  virtual AdapterReport step(std::span<const AdapterSample> samples, const AdamStep& projector,
                             const AdamStep& low_rank, double gradient_limit) = 0;
  virtual AdapterReport evaluate(std::span<const AdapterSample> samples) = 0;
  virtual AdapterState state() const = 0;
  virtual void set_state(const AdapterState& state) = 0;
};

// Throws Error(kUsage) for samples of another length than S, ids outside the vocabulary, rows of an
// image that do not fit, and samples without a scored token; returns how many are scored.
int64_t require_lawful(std::span<const AdapterSample> samples, const models::ModelConfig& decoder,
                       const AdapterLayout& layout, int64_t S);

// `decoder` is read once. `start` has layout.size values. threads 0: all; results are the same.
// Throws what reading throws, Error(kUsage) for a model whose blocks are no plain ones.
std::unique_ptr<AdapterTrainer> make_cpu_adapter_trainer(const models::SourceModel& decoder,
                                                         AdapterLayout layout,
                                                         std::vector<float> start, int64_t S,
                                                         int threads);

}  // namespace crumb::quant::train

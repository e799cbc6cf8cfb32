// One walk of a full-precision model forward and back over windows of text, block by block, for
// what reads gradients: quant/output_moments.h, quant/emq/.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/calibration.h"
#include "quant/train/block.h"

namespace crumb::quant {

inline constexpr int64_t kHeadTokens = 64;  // logits held at a time, by a thread

// One block on the way back over one window of S tokens, for a loss L.
struct WindowBack {
  int64_t layer = 0, window = 0;
  const train::BlockWeights& weights;
  const train::BlockActivations& activations;
  const train::BlockActivations& gradients;     // dL/d(activations)
  std::span<const float> above;                 // dL/dy [S, D]
  const train::BlockWeights& weight_gradients;  // dL/dw, empty unless asked for
};

class ModelWalk {
 public:
  // Over the first `most_windows` windows; `source` and `progress` must outlive it. `stage` names
  // the progress. Throws Error(kUsage) if there are none.
  ModelWalk(const models::SourceModel& source, const CalibrationWindows& windows,
            int64_t most_windows, int threads, const ProgressFn& progress, const char* stage);

  int64_t windows() const { return windows_; }
  int64_t S() const { return context_.S(); }

  // Keeps what enters every block. Throws what source.read throws, Interrupted.
  void forward();
  // L = -sum_t log p(label_t), labels drawn from the model's own predictions (seeded, written to
  // `labels`): dL/d(last block's output), [tokens, D].
  std::vector<float> head_gradient(uint64_t seed, std::vector<int32_t>* labels) const;
  // From there down. `visit` is called for every window of a block, several at once on different
  // threads; `after` once a block, behind its windows.
  void backward(std::vector<float> dy, bool weight_gradients,
                const std::function<void(const WindowBack&)>& visit,
                const std::function<void(int64_t layer)>& after) const;
  void done() const { tell(2 * source_.config.layers); }

 private:
  void tell(int64_t done) const;
  std::size_t window_size() const {
    return static_cast<std::size_t>(context_.S() * source_.config.dim);
  }

  const models::SourceModel& source_;
  train::BlockContext context_;
  int64_t windows_;
  int threads_;
  const ProgressFn& progress_;
  const char* stage_;
  std::vector<std::vector<float>> streams_;  // [layers + 1] of [tokens, D], entering each block
};

}  // namespace crumb::quant

// Statistics of every linear's input over calibration windows, one block in memory at a time.
//
// For each block and each distinct linear input x (attn_in, o_in, mlp_in, down_in):
//   H = E[x x^T],  mean |x_k|,  max |x_k|   over all tokens of all windows.
//
// Two streams of hidden states run through the blocks: the full-precision one, and the
// quantized-prefix one, which has been through the caller's quantized versions of the earlier
// blocks and full-precision weights inside the block at hand. They are one until the first
// advance() with weights.
//
//   Calibrator calibrator(source, windows, options);
//   while (!calibrator.done()) {
//     CalibrationBlock block = calibrator.next_block();
//     ... quantize block.weights with block.prefix_or_full() ...
//     calibrator.advance(quantized);   // or advance()
//   }
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/train/block.h"

namespace crumb::quant {

class CalibrationCache;

struct CalibrationWindows {
  int64_t S = 0;             // tokens of a window
  std::vector<int32_t> ids;  // [windows * S]
  int64_t count() const { return S == 0 ? 0 : std::ssize(ids) / S; }
};

// [tokens, D]: rows of the embedding.
std::vector<float> embedded(const models::SourceModel& source, std::span<const int32_t> ids);

// Of one linear input of K columns.
struct InputStatistics {
  int64_t K = 0;
  int64_t tokens = 0;
  // [K, K] symmetric. Products are summed in float over one window (at most kSumTokens tokens) and
  // in double over these; the mean is then rounded to float, so that a cache loses nothing.
  std::vector<double> H;
  std::vector<float> mean_abs, max_abs;  // [K]
};
inline constexpr int64_t kSumTokens = 512;

struct BlockStatistics {
  std::array<InputStatistics, train::kLinearInputs.size()> inputs;  // by LinearInput
  const InputStatistics& of(train::LinearInput input) const {
    return inputs[static_cast<std::size_t>(input)];
  }
};

struct CalibrationBlock {
  int64_t layer = 0;
  train::BlockWeights weights;            // full precision
  std::optional<BlockStatistics> full;    // absent if options.full says so and there is a prefix
  std::optional<BlockStatistics> prefix;  // present once the streams differ
  const BlockStatistics& prefix_or_full() const { return prefix ? *prefix : *full; }
};

struct CalibrationOptions {
  int threads = 0;  // 0: all hardware threads; results are the same for every number
  // Whether the full-precision statistics are wanted too where the streams differ.
  bool full = true;
  // Full-precision statistics are taken from here and put here; null: none. Must outlive the
  // calibrator.
  const CalibrationCache* cache = nullptr;
};

// Errors: those of source.read; kUsage for windows that are empty or longer than the model's
// context, or ids outside the vocabulary; kNumeric naming block and input for values that are not
// finite.
class Calibrator {
 public:
  // `source` must outlive the object. `progress` (may be empty) is called between batches of
  // windows, counting windows through blocks; Interrupted is thrown when it returns false, the
  // object must then be thrown away (what is in the cache stays).
  Calibrator(const models::SourceModel& source, CalibrationWindows windows,
             const CalibrationOptions& options, ProgressFn progress = {});
  ~Calibrator();

  bool done() const;
  // Statistics of the block at hand; the same block until advance().
  CalibrationBlock next_block();
  // To the next block, the prefix stream through `quantized` weights or the block's own.
  void advance(const train::BlockWeights& quantized);
  void advance();
  // The same with the streams leaving the block, [tokens, D], as the caller has computed them; an
  // empty `full` is computed here when it is asked for.
  void advance(std::vector<float> full, std::vector<float> prefix);

  // Hidden states entering the block at hand, [tokens, D], for reconstruction methods.
  std::span<const float> full_stream();
  std::span<const float> prefix_stream();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Peak bytes of a calibration of `windows` x `S` tokens with `threads` (0: all of the machine).
struct CalibrationMemory {
  int64_t embedding = 0;    // the table, while the windows are looked up
  int64_t streams = 0;      // hidden states
  int64_t weights = 0;      // two blocks: read, and quantized by the caller
  int64_t activations = 0;  // of the windows at work
  int64_t statistics = 0;   // of one block, both streams
  int64_t peak() const;
};
CalibrationMemory calibration_memory(const models::ModelConfig& config, int64_t windows, int64_t S,
                                     int threads);

}  // namespace crumb::quant

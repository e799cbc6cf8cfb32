// Reconstruction of a block: rounding and scales of all its matrices learned together, by gradient,
// so that the quantized block maps quantized-prefix inputs to what the full-precision block makes
// of full-precision inputs.
//   L = mean over tokens of u_t |B(x~_t; W^) - y_t|^2 / D,   y_t = a B(x_t; W) + (1 - a) B(x~_t; W)
// with x~ the prefix stream and x the full one. The papers have a = 1 (EfficientQAT's Block-AP,
// arXiv:2407.11062; FlexRound, arXiv:2306.00317; LRQ, arXiv:2407.11534): a block makes up for all
// that earlier ones have lost. u_t is 1, or 1 over the mean square of
// y_t: a hidden state is normed before it is used, so an error counts relative to it; without
// that the attention sinks' tokens (100 times larger than others) are all that is learned.
//
// SmolLM2 at 4 bits, one scale a row, 34 windows of C4, WikiText at all positions: FlexRound from
// nearest 0.239 nats (nearest 1.090, GPTQ 0.553); rotated, Block-AP from LDLQ 0.117 (LDLQ 0.135).
//
// Adam on minibatches of windows drawn by a counter-based generator. A few windows are kept back;
// what comes out is never worse on them than what went in.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/progress.h"
#include "models/checkpoint.h"
#include "quant/learned_matrix.h"
#include "quant/method.h"
#include "quant/rounded.h"
#include "quant/train/block.h"

namespace crumb::quant {

enum class Reconstruction : uint8_t { kNone, kFlexRound, kLrq, kBlockAp };
inline constexpr Named<Reconstruction> kReconstructions[] = {
    {"none", Reconstruction::kNone},
    {"flexround", Reconstruction::kFlexRound},
    {"lrq", Reconstruction::kLrq},
    {"block-ap", Reconstruction::kBlockAp}};

struct ReconstructOptions {
  Reconstruction method = Reconstruction::kBlockAp;
  int64_t epochs = 5;
  int64_t batch = 2;       // windows of a step
  int64_t kept_back = 8;   // windows, the last ones; at least 1 and less than all
  double weight_rate = 0;  // 0: the method's default
  double scale_rate = 0;   // of log scales; 0: the method's default
  bool relative = true;    // u_t
  double shift = -1;       // a, 0..1; below 0: the method's default
  uint64_t seed = 1;       // order of the windows
  int threads = 0;         // 0: all of the machine; results are the same for every number
};

// With the rates that hold for so many windows of calibration text. The methods' defaults are what
// a value may travel in all: a rate is that, divided by the steps. A start's masters stand a
// twentieth of a step or more off the borders of their cells, so rates too small for the number of
// steps change nothing, and fewer than about 24 steps are too few: every block gets worse. Throws
// Error(kUsage) for windows too few to keep some back.
ReconstructOptions with_defaults(ReconstructOptions options, int64_t windows);

// Bytes of reconstruct() at work, beside the streams and the weights it is given.
int64_t reconstruction_memory(const models::ModelConfig& config, int64_t windows, int64_t S,
                              const ReconstructOptions& options);

// One matrix of the block: in, its start; out, what was learned. Rows of different widths are
// bands, top to bottom.
struct MatrixCodes {
  std::vector<float> train::BlockWeights::*member = nullptr;
  models::Rotation rotation;
  std::vector<Rounded> bands;
};

// What goes through the block: hidden states entering it, all windows one after another [tokens,
// D].
struct BlockStreams {
  std::span<const float> full, prefix;
};

struct ReconstructReport {
  int64_t layer = 0;
  double loss_start = 0, loss_end = 0;    // L on the windows kept back, before and after learning
  double mse_start = 0, mse_end = 0;      // the same with u_t = 1
  double train_start = 0, train_end = 0;  // mean L over the steps of the first and last epoch
  bool improved = false;                  // false: the start was kept
  int64_t steps = 0;
  int64_t weights = 0, changed = 0;  // codes, and those that differ from the start
  double seconds = 0;
  double tokens_per_second = 0;  // of the steps
};

// `weights` are in full precision; matrices that are not in `matrices` stay so. `progress` (may be
// empty) is called between steps; when it returns false Interrupted is thrown and `matrices` are as
// they were. Errors: kUsage for windows too few to keep some back, kNumeric for a loss that is not
// finite, naming the layer.
ReconstructReport reconstruct(const train::BlockContext& context,
                              const train::BlockWeights& weights, const BlockStreams& streams,
                              int64_t layer, const ReconstructOptions& options,
                              std::span<MatrixCodes> matrices, const ProgressFn& progress = {});

}  // namespace crumb::quant

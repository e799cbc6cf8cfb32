// One way of quantizing a block, as data, carried out by the library's parts and given back in
// float so that ways the file format cannot hold can be measured too.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/config.h"
#include "quant/calibration.h"
#include "quant/equalise.h"
#include "quant/ldlq.h"
#include "quant/train/block.h"

namespace crumb::quality {

enum class Rounding : uint8_t { kNone, kNearest, kLdlq, kQuip };

// The calibration tokens that a method's statistics are of: all; all but the first of every window
// (the attention sink, whose states are a hundred times larger); all, but none counting more than
// one of twice the median norm.
enum class Tokens : uint8_t { kAll, kRest, kCapped };
struct StudyStatistics {
  std::array<quant::BlockStatistics, 3> sets;  // of the calibration text, by Tokens
  quant::BlockStatistics fresh;                // of the evaluation text
};

struct Method {
  std::string name;
  int bits = 4;
  int64_t group = 64;  // 0: one scale a row
  kernels::Grid grid = kernels::Grid::kAsym;
  quant::ScaleRule rule = quant::ScaleRule::kAbsMax;
  quant::EqualiseOptions equalise;
  // Inputs whose matrices have column scales of their own each, which the runtime would have to
  // apply.
  std::array<bool, quant::train::kLinearInputs.size()> unfolded{};
  int64_t hadamard = 0;  // block of the rotation
  uint64_t seed = 1;
  Rounding rounding = Rounding::kNearest;
  Tokens tokens = Tokens::kAll;
  quant::ColumnOrder order = quant::ColumnOrder::kAscending;
  quant::GroupScales scales = quant::GroupScales::kStatic;
  double damping = quant::kDampingLadder[0];
  int greedy_passes = 0;
  bool rescale = true;            // QuIP
  std::vector<std::string> keep;  // matrices left as they are: "LAYER.SUFFIX", or "SUFFIX"
  std::string write;              // a float .crumb of the result, empty: none
};

// {"name", "bits", "group", "grid", "rule", "equalise", "tile", "iterations", "repeats", "shared",
// "by_weight", "norm", "back", "points", "rows", "skip", "unfolded", "hadamard", "seed",
// "rounding", "tokens", "order", "scales", "damping", "greedy_passes", "rescale", "keep", "write"},
// all but the name optional; skip and unfolded are lists of "attn_in", "o_in", "mlp_in", "down_in".
// Throws FormatError naming the method and the field for a field or a value that is not known.
std::vector<Method> methods_from_json(const std::string& text, const std::string& file);

struct MatrixLoss {
  std::string name;                         // the tensor's suffix
  double signal = 0;                        // tr(W H W^T), H of all tokens
  double loss = 0;                          // tr(E H E^T)
  double rest_signal = 0, rest_loss = 0;    // the same with H of all but the first tokens
  double fresh_signal = 0, fresh_loss = 0;  // and with that of the evaluation text
  double damping = 0;                       // that the factor needed; 0 without one
};
struct BlockResult {
  quant::train::BlockWeights weights;  // as the runtime would compute with them
  double bits = 0;   // stored for the matrices, with scales, zeros and column scales
  double count = 0;  // weights of the matrices
  std::vector<MatrixLoss> losses;
};
// `statistics` are the block's full-precision ones; those of kRest and kCapped may be empty if
// neither the method nor `losses` want them, `fresh` if `losses` are not wanted. `losses` are
// measured if wanted: they take longer than the rounding.
BlockResult run_method(const Method& method, const models::ModelConfig& config, int64_t layer,
                       const quant::train::BlockWeights& weights, const StudyStatistics& statistics,
                       bool with_losses, int threads);

// Of the inputs of a block's linears, from the stream x entering it, windows of context.S() tokens:
// kRest and kCapped; and from that of the evaluation text, `fresh`.
void add_token_sets(const quant::train::BlockContext& context,
                    const quant::train::BlockWeights& weights, std::span<const float> x,
                    std::span<const float> evaluation, int threads, StudyStatistics* statistics);

}  // namespace crumb::quality

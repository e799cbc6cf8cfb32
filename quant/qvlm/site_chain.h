// The linears of a model one after the other, in float32 over a few windows of text, each with
// roundings of weights and inputs of its own. Linears that share an input are one site:
//   4l      q, k, v    then RoPE and attention       -> what o reads
//   4l + 1  o          added to the stream, norm     -> what gate and up read
//   4l + 2  gate, up   SiLU, product                 -> what down reads
//   4l + 3  down       added to the stream, norm     -> what the next site, or the head, reads
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/source.h"
#include "quant/calibration.h"
#include "quant/train/block.h"

namespace crumb::quant::qvlm {

// How everything is rounded. Weights: mid-rise grid, to nearest, the scale of the largest weight of
// a group times a clip. Inputs: by token, levels -n .. n, n = 2^(bits - 1) - 1, the scale of the
// largest value times a clip over n; what is beyond is cut.
struct RoundingForm {
  int weight_bits = 4, input_bits = 4;
  int64_t group = 64;         // 32, 64, 128, or 0: a row
  models::Rotation rotation;  // of the inputs
};
// Of one site.
struct Clips {
  double input = 1, weight = 1;
  bool operator==(const Clips&) const = default;
};

// Between two sites: the residual stream [T, D] and what the next site reads [T, K].
struct ChainState {
  std::vector<float> stream, input;
};
// Rotated, if the form is; row-major.
struct SiteWeights {
  std::array<std::vector<float>, 3> matrices;  // q, k, v; o; gate, up; down
  std::array<std::vector<float>, 3> biases;    // empty if there are none
};

// x [T, K] -> codes -n .. n [T, K] and scales [T] of tokens. A token of zeros has scale 0.
struct InputCodes {
  std::vector<int8_t> codes;
  std::vector<float> scales;
};
InputCodes input_codes(std::span<const float> x, int64_t K, int bits, double clip);

class SiteChain {
 public:
  // `source` must outlive it. Throws Error(kUsage) for an empty text, a form that a matrix cannot
  // have, a model whose blocks are no plain ones.
  SiteChain(const models::SourceModel& source, CalibrationWindows windows, RoundingForm form);

  int64_t sites() const { return 4 * source_.config.layers; }
  int64_t tokens() const { return std::ssize(windows_.ids); }
  int64_t width(int64_t site) const;                      // K
  std::string name(int64_t site) const;                   // "3.mlp_in"
  std::vector<std::string> matrices(int64_t site) const;  // names of its tensors
  const RoundingForm& form() const { return form_; }

  // What the first site reads.
  ChainState start() const;
  // Of one site, as they are and rounded to nearest. Throws what source.read throws; kNumeric.
  SiteWeights weights(int64_t site) const;
  SiteWeights rounded(SiteWeights weights, int64_t site, double clip) const;
  // Through a site on the caller's thread. `codes`: the site reads these in place of state.input
  // (which it must be of); null: as it is.
  void run(int64_t site, const SiteWeights& weights, const InputCodes* codes,
           ChainState* state) const;
  // state.input as the site's rotation turns it, before it is rounded.
  std::vector<float> seen(int64_t site, const ChainState& state) const;
  // Logits [tokens, V] of the state behind the last site, for tokens [first, first + n).
  std::vector<float> logits(const ChainState& last, int64_t first, int64_t n) const;

 private:
  void attend(std::array<std::vector<float>, 3>& qkv, std::vector<float>* out) const;

  const models::SourceModel& source_;
  CalibrationWindows windows_;
  RoundingForm form_;
  train::BlockContext context_;
  std::vector<std::vector<float>> gains_;  // [2 layers + 1], in the order they are met
  std::vector<float> head_;
};

}  // namespace crumb::quant::qvlm

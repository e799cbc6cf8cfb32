// One matrix whose rounding and scales are learned by gradient, in the space its grid lives in.
//
// What is learned beside log scales decides the codes, nearest to the master v on the scale:
//   kMaster   v itself: Block-AP of EfficientQAT (arXiv:2407.11062). Rates are parts of a step of
//             the start's scale, so that one rate serves rows of every size.
//   kDivisor  v = v0 exp(-S2 - s3), S2 one value a weight, s3 one a row: FlexRound
//             (arXiv:2306.00317) with its divisor in log space. Large weights have large gradients
//             (dv/dS2 = -v), none changes its sign. Rates are relative changes.
//   kLowRank  the same with the low-rank S2 of quant/low_rank.h: LRQ (arXiv:2407.11534).
// v0 is the start's master: the weight moved into the cell of its code (train/fake_quant.h).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/checkpoint.h"
#include "quant/low_rank.h"
#include "quant/rounded.h"
#include "quant/train/adam.h"
#include "quant/train/fake_quant.h"

namespace crumb::quant {

enum class LearnedForm : uint8_t { kMaster, kDivisor, kLowRank };

class LearnedMatrix {
 public:
  // w [N, K]: the plain weights; `start` is on the grid of rotated ones if rotation.hadamard > 0.
  LearnedMatrix(std::span<const float> w, const models::Rotation& rotation, Rounded start,
                LearnedForm form, int threads);

  // plain [N, K]: the weights that the runtime's product amounts to, un-rotated.
  void forward(std::span<float> plain, int threads);
  // G [N, K] = dL/d plain after forward(), destroyed: one step of Adam on everything learned.
  void backward(std::span<float> G, const train::AdamStep& weights, const train::AdamStep& scales,
                int threads);

  // As of the last forward().
  const Rounded& rounded() const { return quant_.rounded; }
  std::span<const float> master() const { return quant_.master; }  // v [N, K]

 private:
  struct Moments {
    std::vector<float> mean, square;
  };
  void move_masters(std::span<const float> G, const train::AdamStep& step, int threads);
  void move_divisors(std::span<float> G, const train::AdamStep& step, int threads);
  void move_low_rank(std::span<float> G, const train::AdamStep& step, int threads);

  models::Rotation rotation_;
  LearnedForm form_;
  train::FakeQuant quant_;
  Moments weights_, scales_;         // [N, K], [N, groups]
  std::vector<float> d_scales_;      // [N, groups]
  std::vector<float> start_scales_;  // kMaster: [N, groups]
  std::vector<float> base_;          // kDivisor, kLowRank: v0 [N, K]
  std::vector<float> divisor_;       // kDivisor: S2 [N, K]
  std::vector<float> row_divisor_;   // kDivisor: s3 [N]
  Moments rows_;                     // kDivisor: of s3
  LowRankDivisor low_rank_;          // kLowRank
};

}  // namespace crumb::quant

// What a cut and rounded model loses: the divergence of its predictions from the whole model's, for
// many subnets in one walk through the blocks. Nothing is written: each block is cut, rounded to
// nearest and run in float while it is in memory.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/calibration.h"
#include "quant/method.h"
#include "quant/pruning.h"
#include "quant/train/block.h"

namespace crumb::quant::apq {

// Bits of the matrices that read each input (LinearInput), of every layer that stays.
using SiteBits = std::array<int, train::kLinearInputs.size()>;
struct Candidate {
  Pruning pruning;
  std::vector<SiteBits> bits;  // [kept]; empty: nothing is rounded
};

class SubnetMeter {
 public:
  // Runs the whole model over `windows` and keeps its predictions: of the tokens behind the first
  // eighth of every window, [tokens, V] floats. `method` is how matrices are rounded (group, grid,
  // rule; to nearest, not rotated). `source` must outlive it. Throws what source.read throws,
  // Error(kUsage) without windows or for a rotation; Interrupted.
  SubnetMeter(const models::SourceModel& source, CalibrationWindows windows, const Method& method,
              int threads, const ProgressFn& progress);

  // KL(whole || candidate) in nats, the mean over those tokens, each candidate on one thread; the
  // same for any number of threads. The embedding and the head stay as they are.
  std::vector<double> measure(std::span<const Candidate> candidates,
                              const ProgressFn& progress) const;
  int64_t tokens() const;

 private:
  double divergence(std::span<const float> stream) const;
  // Calls work(window, token in it, rows) for runs of scored tokens.
  template <class Work>
  void for_scored(std::span<const float> stream, const Work& work) const;

  const models::SourceModel& source_;
  CalibrationWindows windows_;
  Method method_;
  int threads_;
  train::BlockContext context_;
  std::vector<float> start_;        // [tokens, D] embedded
  std::vector<float> head_, gain_;  // [V, D], [D]
  std::vector<float> predicted_;    // [scored, V] probabilities of the whole model
  std::vector<double> entropy_;     // [scored] sum p log p
};

// One block as it will be: cut, and its matrices rounded to nearest unless `bits` is null.
train::BlockWeights rounded_block(const models::ModelConfig& config,
                                  const train::BlockWeights& whole, const KeptLayer& kept,
                                  const SiteBits* bits, const Method& method);

}  // namespace crumb::quant::apq

// Distill-QAT's step, wherever it runs: what the trainer's loop asks of a device.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "quant/train/adam.h"
#include "quant/train/input_quant.h"
#include "quant/train/learned_widths.h"
#include "quant/train/loss.h"
#include "quant/train/muon.h"

namespace crumb::quant::train {

struct StepOptions {
  LossOptions loss;
  AdamStep masters, scales, norms;  // one time step, own rates; biases as norms
  AdamStep embedding;               // of its masters, if it is trained
  std::optional<MuonStep> muon;     // of the blocks' masters, in place of AdamW; each by itself
  double gradient_limit = 1.0;      // of the norm over all but scales
  std::optional<NoiseStep> noise;   // absent: weights are rounded
};

// Means over the tokens of the windows; loss is of LossOptions, kl is KL(teacher || student).
struct StepReport {
  double loss = 0, kl = 0, top1 = 0;  // top1: share of tokens with the same most likely token
  double gradient_norm = 0;
  double width_cost = 0;  // of learned widths, as a part of the budget
};

// All that training changes, for checkpoints: the three arrays have ParameterLayout's order.
// Muon's momentum of masters stands in `mean`; their `square` stays 0 then.
struct TrainingState {
  std::vector<float> parameters, mean, square;
  LearnedWidths widths = {};
  LearnedInputs inputs = {};
};

class Distiller {
 public:
  virtual ~Distiller() = default;
  // One optimiser step on windows of S tokens: ids [m * B * S], B windows at a time where a device
  // has a fixed batch. The gradient is the mean's over all of them: m micro-batches are one batch m
  // times as large, up to the order of float sums. Every token is a target. May throw Interrupted;
  // the state is then that of the step before (with
  // widths settled and inputs' truncations fitted, if the step was to begin with that).
  virtual StepReport step(std::span<const int32_t> ids, const StepOptions& options) = 0;
  // The same without a gradient, with weights rounded; may throw Interrupted.
  virtual StepReport evaluate(std::span<const int32_t> ids, const LossOptions& loss) = 0;
  // Codes that differ from those of the call before (of the start, the first time).
  virtual int64_t changed_codes() = 0;
  virtual TrainingState state() const = 0;
  // The same without a copy, where it stands in the host's memory between two steps; else null.
  virtual const TrainingState* host_state() const { return nullptr; }
  virtual void set_state(const TrainingState& state) = 0;
};

}  // namespace crumb::quant::train

// The training loop: schedule, progress, checkpoints. The device is behind Distiller.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "quant/train/all_reduce.h"
#include "quant/train/distiller.h"
#include "quant/train/train_recipe.h"
#include "quant/train/train_text.h"
#include "quant/train/training_file.h"
#include "quant/train/window_source.h"

namespace crumb::quant::train {

struct TrainProgress {
  int64_t step = 0, steps = 0, tokens = 0;
  StepReport last, kept_back;    // kept_back.kl < 0: not measured at this step
  double tokens_per_second = 0;  // since changed_codes was measured, without evaluation and saving
  double seconds_left = 0;
  int64_t changed_codes = -1;  // since they were last measured, < 0: not at this step
};

struct TrainJob {
  TrainRecipe recipe;
  const TrainText* text = nullptr;
  std::string state_prefix;    // save_full's; empty: nothing is saved
  double seconds = 0;          // stop, having saved, after this long; 0: when all steps are done
  std::function<bool()> stop;  // asked after every step: save and return
  std::function<void(const TrainProgress&)> report;  // before the first step and after every one
  AllReduce* group = nullptr;            // those that run the same job together; they stop together
  std::optional<WidthCosts> costs = {};  // width_costs() of the recipe
  WriteRows write = {};                  // by the teacher, as sampling_of() says; if it generates
};

enum class TrainEnd : uint8_t { kDone, kOutOfTime, kStopped };

// Runs from `place` (and the state the distiller has) until an end; returns where it stands. A
// distiller that throws Interrupted ends the run as `stop` does, at the step before.
// Schedule, data order and report times depend on the recipe and the place only, so a run in pieces
// is the run in one.
TrainEnd train(const TrainJob& job, Distiller& distiller, TrainingPlace& place);

}  // namespace crumb::quant::train

// The training loop: recipe, schedule, progress, checkpoints. The device is behind Distiller.
#pragma once
#include <csignal>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/train/distiller.h"
#include "quant/train/student.h"
#include "quant/train/training_file.h"

namespace crumb::quant::train {

enum class Optimiser : uint8_t { kAdam, kMuon };

// NIPQ: noise in place of rounding for the first steps, then rounding.
struct NoiseRecipe {
  double share = 0.85;      // of the steps; 0: rounding alone, with inputs
  double average_bits = 0;  // budget of learned widths: bits a weight of the blocks; 0: not learned
  std::string costs;        // or costs_from_json()'s file (learned_widths.h), with its own budget
  double width_rate = 2e-2, budget_weight = 10;
  bool random_widths = false;
  int input_bits = 0;  // of the linears' inputs (input_quant.h), 2 to 8; 0: they stay as they are
  double input_rate = 1e-2;
  bool learns_widths() const { return average_bits > 0 || !costs.empty(); }
};

struct TrainRecipe {
  std::vector<std::string> data;  // token files (token_data.h)
  std::string kept_back;          // token file of windows never trained on
  int64_t kept_windows = 64;      // of it, a multiple of batch
  int64_t batch = 64, window = 512;
  int64_t steps = 1000;
  int64_t warmup = 50;       // steps; also after a restart of the optimiser
  double rate = 1e-3;        // of masters and norm gains
  double scale_rate = 2e-3;  // of log scales
  double floor = 0.05;       // the last step's share of the rate
  double beta1 = 0.9, beta2 = 0.95;
  double gradient_limit = 1.0;
  Optimiser optimiser = Optimiser::kAdam;  // of masters; all else is AdamW's
  double momentum = 0.95;                  // Muon's
  LossOptions loss;
  std::optional<NoiseRecipe> noise;
  int64_t forward_kl_steps = 0;  // the first steps use forward KL whatever `loss` is
  uint64_t seed = 1;
  int64_t report_every = 20, evaluate_every = 200;  // steps
  double save_seconds = 60;
};

// JSON object with the fields of TrainRecipe (loss: {"kind": "forward_kl" | "reverse_kl" | "jsd" |
// "cakld" | "cross_entropy", "beta"}, optimiser: "adam" | "muon"; noise: an object with the fields
// of NoiseRecipe); absent fields keep their defaults. Throws Error(kUsage) for text that is no such
// object, naming an unknown field.
TrainRecipe recipe_from_json(const std::string& text);
std::string to_json(const TrainRecipe& recipe);

// What the recipe's widths cost, if they are learned. Throws IoError, Error(kUsage).
std::optional<WidthCosts> width_costs(const TrainRecipe& recipe, std::span<const MatrixPart> parts);

struct TrainProgress {
  int64_t step = 0, steps = 0, tokens = 0;
  StepReport last, kept_back;    // kept_back.kl < 0: not measured at this step
  double tokens_per_second = 0;  // since the report before, without evaluation and saving
  double seconds_left = 0;
  int64_t changed_codes = 0;  // since the report before
};

struct TrainJob {
  TrainRecipe recipe;
  std::string state_prefix;  // save_full's; empty: nothing is saved
  double seconds = 0;        // stop, having saved, after this long; 0: when all steps are done
  const volatile std::sig_atomic_t* stop = nullptr;  // not 0: save and return
  std::function<void(const TrainProgress&)> report;
  std::optional<WidthCosts> costs = {};  // width_costs() of the recipe
};

enum class TrainEnd : uint8_t { kDone, kOutOfTime, kStopped };

// Runs from `place` (and the state the distiller has) until an end; returns where it stands.
// Schedule, data order and report times depend on the recipe and the place only, so a run in pieces
// is the run in one.
TrainEnd train(const TrainJob& job, Distiller& distiller, TrainingPlace& place);

}  // namespace crumb::quant::train

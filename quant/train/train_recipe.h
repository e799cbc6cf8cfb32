// What a training job is: a JSON object, the same for every device.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/source.h"
#include "quant/train/learned_widths.h"
#include "quant/train/loss.h"
#include "quant/train/text_script.h"
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

// Text that the teacher writes between steps, every row of it used once (window_source.h).
struct GenerateRecipe {
  std::string script;   // JSON of a TextScript (text_script.h)
  double share = 1;     // of every step's windows, rounded up; the others are of data and text
  int64_t rows = 1024;  // written at a time
  double temperature = 1, min_p = 0.02;
};

struct TrainRecipe {
  std::string teacher, start;        // models; may be given beside the recipe instead
  std::string masters;               // likewise: whose weights the masters are; empty: teacher
  std::vector<std::string> data;     // token files (token_data.h)
  std::vector<std::string> text;     // text or JSONL of chats (quant/corpus.h)
  std::string kept_back;             // token file of windows never trained on
  int64_t kept_windows = 64;         // of it, a multiple of batch; of texts without it, at most
  int64_t batch = 64, window = 512;  // windows of a micro-batch, tokens of a window
  int64_t accumulate = 1;            // micro-batches of a step
  int64_t steps = 1000;
  int64_t warmup = 50;        // steps; also after a restart of the optimiser
  double rate = 1e-3;         // of masters, norm gains and biases
  double scale_rate = 2e-3;   // of log scales
  double embedding_rate = 0;  // of the embedding's masters, which is the head too; 0: frozen
  double floor = 0.05;        // the last step's share of the rate
  double beta1 = 0.9, beta2 = 0.95;
  double gradient_limit = 1.0;
  Optimiser optimiser = Optimiser::kAdam;  // of masters; all else is AdamW's
  double momentum = 0.95;                  // Muon's
  LossOptions loss;
  std::optional<NoiseRecipe> noise;
  std::optional<GenerateRecipe> generate;
  int64_t forward_kl_steps = 0;  // the first steps use forward KL whatever `loss` is
  uint64_t seed = 1;
  int64_t report_every = 20, evaluate_every = 200;  // steps
  double save_seconds = 60;
  double gate = 0;     // largest KL of the result on kept-back text that passes; 0: any
  std::string inputs;  // inputs_hash() (train_text.h) of the paths above; empty: not looked at
  int64_t step_windows() const { return batch * accumulate; }
  int64_t generated_windows() const;  // of a step
};

// JSON object with the fields of TrainRecipe (loss: {"kind": "forward_kl" | "reverse_kl" | "jsd" |
// "cakld" | "cross_entropy", "beta"}, optimiser: "adam" | "muon", noise, generate: objects with the
// fields of NoiseRecipe and GenerateRecipe); absent fields keep their defaults. Throws
// Error(kUsage) for text that is no such object, naming an unknown field. `name` is for messages.
TrainRecipe recipe_from_json(const std::string& text, const std::string& name = "JSON");
std::string to_json(const TrainRecipe& recipe);

// How the teacher's rows are drawn; the recipe must generate.
Sampling sampling_of(const TrainRecipe& recipe);

// What the recipe's widths cost, if they are learned. Throws IoError, Error(kUsage).
std::optional<WidthCosts> width_costs(const TrainRecipe& recipe, std::span<const MatrixPart> parts);

// Whether a state of one job may be continued by the other: all that changes the result is equal.
// Paths count only where one of the two does not know its inputs' hash.
bool same_run(const TrainRecipe& a, const TrainRecipe& b);

// The stage of a checkpoint's recipe that says how it was trained. `arithmetic`: of the teacher.
std::string stage_json(const TrainRecipe& recipe, const TrainingPlace& place,
                       const models::SourceModel& teacher, std::string_view arithmetic);

}  // namespace crumb::quant::train

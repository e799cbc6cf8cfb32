// Which tensor gets which bits, decided and shown before the work.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/config.h"
#include "quant/calibration.h"
#include "quant/equalise.h"
#include "quant/method.h"
#include "quant/pruning.h"
#include "quant/reconstruct.h"
#include "quant/token_weights.h"

namespace crumb::quant {

// The text whose activations calibrated methods are fitted to.
struct CalibrationText {
  CalibrationWindows windows;
  std::string source;  // file name or "default corpus", for the recipe
  uint64_t seed = 0;   // order of its documents
};

// How the matrices of a block are fitted to the streams (quant/sequential.h).
struct BlockFit {
  bool sequential = false;  // one after the other, behind what is stored; the rest needs it
  TokenWeights weights = TokenWeights::kEqual;
  double shift = 0;     // a, 0 to 1
  double residual = 0;  // b, 0 to 1
  bool operator==(const BlockFit&) const = default;
};

// Round to nearest, not rotated: 8 bits with one scale a row, fewer bits in groups of 64 with
// zeros, 32 bits as floats.
Method vision_method(int bits);

struct QuantizeOptions {
  Method linear;                     // every matrix of the blocks
  Method embedding;                  // embed_tokens (and the tied head)
  Method head;                       // lm_head, if it is a tensor of its own
  Method vision = vision_method(8);  // matrices of tower and projector; reads no statistics
  // Column scales of the blocks, folded in before rounding. `grid` is not read: AWQ's search rounds
  // like `linear`, with scales of the largest weight.
  EqualiseOptions equalise;
  std::map<std::string, int> bits;  // of single matrices by name, instead of the method's
  std::map<std::string, std::vector<models::Band>> bands;  // likewise; not of those in `bits`
  // What was taken out of the source before (quant/pruning.h), for the recipe.
  std::optional<Pruning> pruning;
  // How `bits` and `bands` were found, for the recipe: JSON text, or empty.
  std::string allocation;
  // Needed by methods that read statistics.
  std::optional<CalibrationText> calibration;
  // Statistics of inputs that have been through the quantized earlier blocks, or, if false, of the
  // full-precision model.
  bool prefix = true;
  BlockFit fit;  // needs `prefix`
  // Of the blocks after rounding; its number of threads is not used.
  ReconstructOptions reconstruction = {.method = Reconstruction::kNone};
  int threads = 0;  // 0: all hardware threads
  // Where the source was read from, if known: the output must be another file.
  std::string source_path;
};

struct PlanRow {
  models::TensorInfo tensor;
  models::MatrixPlan matrix;  // bits 32 for what stays float
  int64_t bytes = 0;          // in the file, each part padded to 64
  double bpw = 0;             // with scales and zeros
};
// Averages are stored bits (codes, scales, zeros, padding) over the weights of the model.
struct Plan {
  std::vector<PlanRow> rows;  // execution order
  int64_t bytes = 0;          // of all tensors
  double linear_bpw = 0;      // matrices of the blocks
  double head_bits = 0;       // the head, or the embedding it is tied to
  double total_bpw = 0;       // all tensors
};

// The method that holds for a tensor; norms and biases stay float.
Method method_for(const QuantizeOptions& options, const models::TensorInfo& tensor);

// The first `rows` rows of the head, or of the embedding that is tied to it, at 8 bits, as bands in
// `options`. Byte-pair vocabularies are in the order of their merges, so these are the tokens that
// are met most: where an error in an embedding or a logit is made most often. Nothing where the
// matrix has 8 or more bits anyway, or bits or bands of its own in `options`. Throws Error(kUsage)
// unless rows are whole strips of 32 and fewer than the vocabulary.
void widen_head(const models::ModelConfig& config, int64_t rows, QuantizeOptions* options);

// Throws Error(kUsage) for bits or groups a matrix cannot have, naming both, for a name in
// options.bits that is no matrix of the model, for AWQ's scales with a rotation, which would
// undo them, and for an embedding that is a lookup only and is to be calibrated.
Plan make_plan(const models::ModelConfig& config, const QuantizeOptions& options);
// The plan an existing file was made by.
Plan plan_of(const models::Checkpoint& checkpoint);

// Bits of a row for people and reports: of its codes, the mean if it has bands; 32 for floats.
double stored_bits(const PlanRow& row);

std::string_view grid_name(kernels::Grid grid);  // "seq", "lsq", "asym"

}  // namespace crumb::quant

// The recipe of a file and the report of a job, as JSON text.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "models/source.h"
#include "quant/plan.h"

namespace crumb::quant {

// {"schema":"crumb.recipe/2","program","source":{hash,weights},
//  "calibration":{text,hash,windows,length,seed,inputs} or null, with weights, shift, residual
//    if inputs is "sequential",
//  "stages":[{stage,...}]}; stage "equalise" (if there is one) has method and its options; stage
// "round" has tensors (linear, embedding, head, vision), rounding, bits, group (0 is one scale a
// row), grid, rule, rotation:{hadamard,seed} and, for LDLQ, order, scales, greedy_passes, damping
// (trials and refits if there are any); stage "float" has tensors only; stage "reconstruct", if
// there is one, has method, epochs, batch, kept_back, weight_rate, scale_rate, loss, seed. "bits"
// holds the widths of single matrices by name, "bands" [[strips, bits], ...] of those that have
// several, "allocation" how they were found, if there are any. "pruning" is what was taken out of
// the source (quant/pruning.h): source.hash is that of the rest, and tensors are named as in it.
std::string recipe_json(const models::SourceModel& source, const QuantizeOptions& options);

// A recipe read back.
struct Recipe {
  QuantizeOptions options;  // without the calibration text
  std::string source_hash;
  struct Text {
    std::string source;  // kDefaultCorpus, or a file's name
    std::string hash;    // windows_hash
    int64_t windows = 0, length = 0;
    uint64_t seed = 0;
  };
  std::optional<Text> calibration;
};
inline constexpr const char* kDefaultCorpus = "default corpus";

// `text` is a recipe, or a JSON object that holds one as "recipe" (`crumb inspect --json`, a
// report). Every field must be there; unknown ones are refused, for they might matter. Throws
// FormatError naming `file` and the field.
Recipe parse_recipe(std::string_view text, const std::string& file);

}  // namespace crumb::quant

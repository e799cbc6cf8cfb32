// Structural pruning: which layers, FFN units and KV heads (each with its query heads) of a model
// stay. The rest is taken out of the matrices, nothing is left in their place.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/source.h"
#include "quant/train/block.h"

namespace crumb::quant {

struct KeptLayer {
  int64_t source = 0;          // which layer of the whole model
  std::vector<int64_t> units;  // FFN units, ascending, at least one
  std::vector<int64_t> heads;  // KV heads, likewise
  bool operator==(const KeptLayer&) const = default;
};
struct Pruning {
  int64_t layers = 0, ffn = 0, kv_heads = 0;  // of the whole model
  std::vector<KeptLayer> kept;                // sources ascending
  bool operator==(const Pruning&) const = default;
};

// Everything stays.
Pruning keep_all(const models::ModelConfig& config);

// As it is if everything stays. Throws Error(kUsage) for a model that is pruned already or of other
// sizes, or layers, units or heads that it does
// not have or that do not ascend.
models::ModelConfig pruned_config(const models::ModelConfig& config, const Pruning& pruning);

// The rest of `source`, as a model of its own: tensors are read whole and gathered. Its hash is
// that of the source's and of what stays. Throws as above.
models::SourceModel prune(const models::SourceModel& source, const Pruning& pruning);

// The rest of one block of a whole model.
train::BlockWeights prune_block(const models::ModelConfig& config, const train::BlockWeights& block,
                                const KeptLayer& kept);

// {"layers", "ffn", "kv_heads" (of the whole model), "kept": [{"source", "units", "heads"}, ..]};
// units and heads are bits, four a hexadecimal digit, the lowest unit first and in the lowest bit,
// left out if all stay. Throws FormatError naming `file`.
std::string pruning_to_json(const Pruning& pruning);
Pruning pruning_from_json(std::string_view text, const std::string& file);

}  // namespace crumb::quant

// Named methods and presets: tables of Method.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "models/config.h"
#include "quant/equalise.h"
#include "quant/method.h"
#include "quant/plan.h"

namespace crumb::quant {

// Of one kind of tensor: `crumb quantize --method NAME`.
struct NamedMethod {
  std::string_view name, summary;
  Method method;
};
std::span<const NamedMethod> methods();

// Of a whole model: `crumb quantize --preset NAME`.
struct Preset {
  std::string_view name, summary;
  Method linear;
  Method head;    // lm_head, or the embedding that is tied to it
  Method lookup;  // an embedding of its own
  double gate;    // KL in nats a token on kept-back text above which something went wrong
  BlockFit fit = {};
  EqualiseOptions equalise = {};
  int64_t wide_rows = 0;  // of the head: widen_head(), where the vocabulary has more
};
std::span<const Preset> presets();

// Null if there is none of this name.
const Method* find_method(std::string_view name);
const Preset* find_preset(std::string_view name);

// The largest of 64 and 32 that divides every input of the model's matrices, 0 if neither does.
int64_t rotation_block(const models::ModelConfig& config);

// Preset::wide_rows, or 0 where the vocabulary has no more than that.
int64_t wide_rows(const Preset& preset, const models::ModelConfig& config);

// The preset's methods for a model: rotations of the block above. wide_rows are not in it, for they
// depend on the head's bits, which may be chosen otherwise.
QuantizeOptions preset_options(const Preset& preset, const models::ModelConfig& config,
                               uint64_t seed);

}  // namespace crumb::quant

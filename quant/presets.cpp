#include "quant/presets.h"

#include <algorithm>

namespace crumb::quant {
namespace {

using kernels::Grid;

// In the tables a rotation only says that there is one; its block depends on the model.
constexpr models::Rotation kRotated{64, 1};

constexpr Method nearest(int bits, int64_t group, Grid grid, ScaleRule rule,
                         models::Rotation rotation) {
  Method method;
  method.bits = bits;
  method.group = group;
  method.grid = grid;
  method.rule = rule;
  method.rotation = rotation;
  return method;
}

// Rotated LDLQ on the mid-rise grid; group 0 is one scale a row.
constexpr Method rotated_ldlq(int bits, int64_t group) {
  Method method = nearest(bits, group, Grid::kSeq, ScaleRule::kWeighted, kRotated);
  method.rounding = Rounding::kLdlq;
  return method;
}

// As GPTQ publishes it: groups of min and max on the weights as they are when it gets there.
constexpr Method gptq() {
  Method method = nearest(4, 64, Grid::kAsym, ScaleRule::kAbsMax, {});
  method.rounding = Rounding::kLdlq;
  method.scales = GroupScales::kUpdated;
  return method;
}

constexpr Method kInt8 = nearest(8, 0, Grid::kSeq, ScaleRule::kAbsMax, kRotated);
constexpr Method kInt4Nearest = nearest(4, 64, Grid::kAsym, ScaleRule::kMse, kRotated);

// SINQ in its folded form, twice over: the second round sees v and up as the first has left them.
EqualiseOptions sinq() {
  EqualiseOptions options;
  options.method = Equalise::kSinkhorn;
  options.repeats = 2;
  return options;
}
constexpr Method kSinqNearest = nearest(4, 64, Grid::kAsym, ScaleRule::kAbsMax, {});

constexpr NamedMethod kMethods[] = {
    {"nearest", "round to nearest, rotated, groups of 64", kInt4Nearest},
    {"ldlq", "LDLQ, rotated, one scale a row", rotated_ldlq(4, 0)},
    {"gptq", "GPTQ as published, not rotated, groups of 64", gptq()},
};

// Each matrix behind all that is stored before it, with half of GPTAQ's shift and half of what the
// residual stream has lost: whole shifts fit the calibration text too well (bench/results).
constexpr BlockFit kBehindStored{true, TokenWeights::kEqual, 0.5, 0.5};

// Of a head of 4 bits: 0.17 bits more for half of what it loses (bench/results).
constexpr int64_t kWideRows = 2048;

const Preset kPresets[] = {
    {"int8", "8 bits, no data", kInt8, kInt8, kInt8, 0.05},
    {"int4",
     "best of 4 bits",
     rotated_ldlq(4, 64),
     rotated_ldlq(4, 0),
     kInt8,
     0.3,
     kBehindStored,
     {},
     kWideRows},
    {"int4-fast", "4 bits, no data, seconds", kSinqNearest, kInt8, kInt8, 0.6, {}, sinq()},
    {"int3",
     "3 bits, head of 4",
     rotated_ldlq(3, 0),
     rotated_ldlq(4, 0),
     kInt8,
     1.0,
     kBehindStored,
     {},
     kWideRows},
    {"int2-ptq",
     "2 bits by calibration alone, head of 4",
     rotated_ldlq(2, 0),
     rotated_ldlq(4, 0),
     kInt8,
     3.0,
     kBehindStored,
     {},
     kWideRows},
};

template <class Entry, std::size_t n>
const Entry* find(const Entry (&table)[n], std::string_view name) {
  const auto found = std::find_if(std::begin(table), std::end(table),
                                  [&](const Entry& e) { return e.name == name; });
  return found == std::end(table) ? nullptr : found;
}

}  // namespace

std::span<const NamedMethod> methods() { return kMethods; }
std::span<const Preset> presets() { return kPresets; }

const Method* find_method(std::string_view name) {
  const NamedMethod* found = find(kMethods, name);
  return found == nullptr ? nullptr : &found->method;
}
const Preset* find_preset(std::string_view name) { return find(kPresets, name); }

int64_t rotation_block(const models::ModelConfig& config) {
  for (const int64_t block : {64, 32}) {
    bool divides = config.dim % block == 0;
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      const models::LayerSize size = models::layer_size(config, layer);
      const int64_t heads = config.heads / config.kv_heads * size.kv_heads;
      divides = divides && size.ffn % block == 0 && heads * config.head_dim % block == 0;
    }
    if (divides) return block;
  }
  return 0;
}

int64_t wide_rows(const Preset& preset, const models::ModelConfig& config) {
  return preset.wide_rows < config.vocab ? preset.wide_rows : 0;
}

QuantizeOptions preset_options(const Preset& preset, const models::ModelConfig& config,
                               uint64_t seed) {
  const int64_t block = rotation_block(config);
  const auto fitted = [&](Method method) {
    if (method.rotation.hadamard != 0) method.rotation = {block, block != 0 ? seed : 0};
    return method;
  };
  QuantizeOptions options;
  options.linear = fitted(preset.linear);
  options.equalise = preset.equalise;
  options.fit = preset.fit;
  options.head = fitted(preset.head);
  options.embedding = fitted(config.tied_head ? preset.head : preset.lookup);
  return options;
}

}  // namespace crumb::quant

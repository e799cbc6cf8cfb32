// The joint space of APQ (CVPR 2020, arXiv:2006.08509) over a language model that needs no training
// to be cut: which layers stay, how wide their FFN is, how many KV heads they have, and the width
// of the weights that read each of a layer's four inputs (q k v | o | gate up | down).
#pragma once
#include <array>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "quant/importance.h"
#include "quant/pruning.h"
#include "quant/train/block.h"

namespace crumb::quant::apq {

inline constexpr std::size_t kSites = train::kLinearInputs.size();

// What may be chosen; indices in a Subnet are into these.
struct Space {
  int64_t layers = 0;
  std::vector<int64_t> ffn;                                 // falling, the first is the whole
  std::vector<int64_t> kv_heads;                            // likewise
  std::vector<int> widths;                                  // growing
  int64_t first_kept = 2, last_kept = 1, most_dropped = 6;  // layers

  bool may_drop(int64_t layer) const { return layer >= first_kept && layer < layers - last_kept; }
};

// FFN 1, 7/8, 3/4 and 1/2 of F in whole multiples of 64 (so that groups of 64 and kernels' tiles
// stay whole; narrower models: of 16), KV heads Hk and, if there are several, Hk - 1; at most a
// fifth of the layers are dropped, never the first two or the last.
Space space_of(const models::ModelConfig& config, std::span<const int> widths);

struct LayerChoice {
  bool present = true;
  uint8_t ffn = 0, kv_heads = 0;
  std::array<uint8_t, kSites> bits{};  // of widths
  bool operator==(const LayerChoice&) const = default;
};
using Subnet = std::vector<LayerChoice>;  // [layers]

// All there, all at this width (an index).
Subnet whole_subnet(const Space& space, uint8_t width);
int64_t dropped(const Subnet& subnet);

// Drawn so that their quality spreads: how much is taken from where differs from one to the next.
Subnet random_subnet(const Space& space, std::mt19937_64& rng);
// Each layer drawn anew with this probability: its presence, sizes and widths.
Subnet mutated(const Space& space, const Subnet& subnet, double probability, std::mt19937_64& rng);
// Each layer of one or the other. Layers of both that are absent may be more than `most_dropped`:
// then some come back, drawn.
Subnet crossed(const Space& space, const Subnet& a, const Subnet& b, std::mt19937_64& rng);

// One-hot, all zero for an absent layer: a layer's presence, FFN and KV heads, and its sites'
// widths.
std::vector<float> architecture_code(const Space& space, const Subnet& subnet);
std::vector<float> width_code(const Space& space, const Subnet& subnet);

// What stays of the model: by importance in every layer.
Pruning pruning_of(const models::ModelConfig& config, const Space& space,
                   std::span<const LayerImportance> importance, const Subnet& subnet);

// Six digits a layer, indices of FFN, KV heads and the four sites, "." between; "-" before an
// absent one.
std::string text_of(const Subnet& subnet);
// Throws Error(kUsage) for text that is no subnet of the space.
Subnet subnet_from(const Space& space, const std::string& text);

}  // namespace crumb::quant::apq

// A small random model with everything a real one has: for tests and benches, never for quality
// figures.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "models/source.h"

namespace crumb::models {

struct TinyOptions {
  std::string architecture = "llama";
  int64_t layers = 2, dim = 64, ffn = 96, heads = 4, kv_heads = 2, head_dim = 16;  // L D F H Hk Dh
  int64_t vocab = 300;  // V, at least 259: 256 bytes and three control tokens; the rest are merges
  int64_t context = 256;
  bool tied_head = true;
  bool qkv_bias = false;  // must be true for qwen2, false for llama (what import accepts)
  uint64_t seed = 1;
  BlockOptions block = {};
  std::optional<VisionConfig> vision = {};  // tiny_vision(), or another
};

// A lawful vision part: `kind` is a name of models/vision_towers.h, whose options it has.
VisionConfig tiny_vision(std::string_view kind = "dinov2");

// The model of these options: the same bytes on every machine. Weights are uniform with variance 1
// / K, so that activations keep their size; norms lie around 1. The vocabulary is byte-level BPE
// ("gpt2"): ids 0..2 are <|endoftext|>, <|im_start|>, <|im_end|> (end of turn), 3..258 the bytes in
// order, then merges of pairs of frequent tokens. Throws Error if `vocab` is too small or the
// config is not lawful.
SourceModel tiny_model(const TinyOptions& options = {});

}  // namespace crumb::models

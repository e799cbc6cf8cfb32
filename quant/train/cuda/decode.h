// One token a row at a time, for text generation: attention over a KV cache, and the choice of the
// next token.
#pragma once
#include <cstdint>

#include "quant/train/cuda/device.h"
#include "quant/train/text_script.h"

namespace crumb::quant::train::cuda {

struct CacheSize {
  int64_t B = 0, T = 0, heads = 0, kv_heads = 0;  // rows, positions
};
// qkv [B, (H + 2 Hk) * 64] after RoPE, of position t. Puts k and v into the layer's cache [B, Hk,
// T, 64] each, and writes o [B, H * 64] of attention over positions 0..t. H / Hk is 1, 2, 3, 4, 6
// or 7.
void decode_attention(const CacheSize& size, const bf16* qkv, int64_t t, bf16* keys, bf16* values,
                      bf16* o, cudaStream_t s);

// A TextScript (quant/train/text_script.h) on the device.
struct Script {
  const int32_t* prefixes = nullptr;      // one after the other
  const int32_t* prefix_begin = nullptr;  // [prefixes + 1]
  int32_t prefix_count = 0;
  const int32_t* headers = nullptr;       // one after the other
  const int32_t* header_begin = nullptr;  // [headers + 1]
  int32_t header_count = 0;
  int32_t end = -1;  // token id; -1: none
};

// start_row() and next_token() of rows first_row + b. Writes the first token of every row to tokens
// [B, T] and `current` [B].
void start_rows(const Script& script, const Sampling& sampling, int64_t first_row, int64_t B,
                int64_t T, RowState* state, int32_t* tokens, int32_t* current, cudaStream_t s);
// From logits [B, V] of position t: the token of position t + 1.
void next_tokens(const Script& script, const Sampling& sampling, const float* logits, int64_t V,
                 int64_t first_row, int64_t B, int64_t T, int64_t t, RowState* state,
                 int32_t* tokens, int32_t* current, cudaStream_t s);

}  // namespace crumb::quant::train::cuda

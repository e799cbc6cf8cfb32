// What the forward and the backward pass of attention share.
#pragma once
#include <cmath>

#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/mma.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {

inline constexpr float kScale = 0.125f;                      // 1 / sqrt(64)
inline constexpr float kLog2Scale = 0.125f * 1.4426950409f;  // for exp2
inline constexpr float kLog2e = 1.4426950409f;

// Where one head of one window stands.
struct Head {
  const bf16 *q, *k, *v;
  int64_t pitch;
};
__device__ inline Head head_of(const AttentionSize& z, const bf16* qkv, int64_t b, int64_t h) {
  const int64_t pitch = (z.heads + 2 * z.kv_heads) * 64, kv = h / (z.heads / z.kv_heads);
  const bf16* window = qkv + b * z.S * pitch;
  return {window + h * 64, window + (z.heads + kv) * 64, window + (z.heads + z.kv_heads + kv) * 64,
          pitch};
}

// Scores of later keys: rows are the warp's 16 of a tile of 64 queries, columns the same 64 keys.
__device__ inline void mask_diagonal(float (&scores)[8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (8 * n + 2 * (lane % 4) + i % 2 > 16 * warp + lane / 4 + i / 2 * 8)
        scores[n][i] = -INFINITY;
}

inline dim3 attention_grid(const AttentionSize& z, int64_t heads) {
  return {static_cast<unsigned>(z.S / kTile), static_cast<unsigned>(heads),
          static_cast<unsigned>(z.B)};
}

}  // namespace crumb::quant::train::cuda

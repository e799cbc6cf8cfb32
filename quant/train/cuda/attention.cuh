// What the forward and the backward pass of attention share.
#pragma once
#include <cmath>

#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/mma.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {

// Heads are kParts tiles of 64 values wide.
template <int kParts>
inline constexpr float kScale = kParts == 1 ? 0.125f : 0.08838834764831845f;  // 1 / sqrt(width)
template <int kParts>
inline constexpr float kLog2Scale = kScale<kParts> * 1.4426950409f;  // for exp2
inline constexpr float kLog2e = 1.4426950409f;

template <int kParts>
using WideTile = Tile[kParts];

// Where one head of one window stands.
struct Head {
  const bf16 *q, *k, *v;
  int64_t pitch;
};
__device__ inline Head head_of(const AttentionSize& z, const bf16* qkv, int64_t b, int64_t h) {
  const int64_t pitch = (z.heads + 2 * z.kv_heads) * z.width, kv = h / (z.heads / z.kv_heads);
  const bf16* window = qkv + b * z.S * pitch;
  return {window + h * z.width, window + (z.heads + kv) * z.width,
          window + (z.heads + z.kv_heads + kv) * z.width, pitch};
}

template <int kParts>
__device__ inline void copy_tiles(WideTile<kParts>& tiles, const bf16* from, int64_t pitch) {
#pragma unroll
  for (int i = 0; i < kParts; ++i) copy_tile(tiles[i], from + i * kTile, pitch);
}
template <int kParts>
__device__ inline void load_left(uint32_t (&a)[kParts][4][4], const WideTile<kParts>& tiles,
                                 int row) {
#pragma unroll
  for (int i = 0; i < kParts; ++i) load_left(a[i], tiles[i], row);
}
// c [16, 64] = left [16, width] tiles^T.
template <int kParts>
__device__ inline void multiply_transposed(float (&c)[8][4], const uint32_t (&a)[kParts][4][4],
                                           const WideTile<kParts>& tiles) {
  clear(c);
#pragma unroll
  for (int i = 0; i < kParts; ++i) multiply_transposed(c, a[i], tiles[i]);
}
// c [16, width] += left [16, 64] tiles.
template <int kParts>
__device__ inline void multiply_plain(float (&c)[kParts][8][4], const uint32_t (&a)[4][4],
                                      const WideTile<kParts>& tiles) {
#pragma unroll
  for (int i = 0; i < kParts; ++i) multiply_plain(c[i], a, tiles[i]);
}

// Runs the kernel with `bytes` of dynamic shared memory, which may be more than 48 KiB.
template <class Kernel, class... Args>
void launch_tiles(Kernel kernel, dim3 grid, std::size_t bytes, cudaStream_t s, Args... args) {
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "cudaFuncSetAttribute");
  kernel<<<grid, 128, bytes, s>>>(args...);
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

// Tensor-core building blocks for tiles of 64 x 64 bf16 in shared memory. Fragments are those of
// mma.m16n8k16 (PTX ISA): lane l holds rows l / 4 (+ 8) and columns 2 (l % 4), + 1 of a result.
#pragma once
#include <cuda_bf16.h>

#include <cstdint>

namespace crumb::quant::train::cuda {

inline constexpr int kTile = 64;
inline constexpr int kPitch = 72;  // rows of 144 bytes: eight of them touch all banks once

struct Tile {
  __nv_bfloat16 at[kTile][kPitch];
};

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Starts the copy of 64 rows of 64 values, `pitch` values apart, by 128 threads.
__device__ inline void copy_tile(Tile& tile, const __nv_bfloat16* from, int64_t pitch) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int chunk = static_cast<int>(threadIdx.x) + 128 * i, row = chunk / 8, col = chunk % 8 * 8;
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(&tile.at[row][col])),
        "l"(from + row * pitch + col));
  }
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n"); }
template <int kPending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

__device__ inline void load_matrices(uint32_t (&r)[4], const void* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(at)));
}
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], const void* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(at)));
}

// c += a b.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Left operand: rows [row, row + 16) of a tile, its 64 columns in four steps.
__device__ inline void load_left(uint32_t (&a)[4][4], const Tile& tile, int row) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    load_matrices(a[k], &tile.at[row + lane % 16][16 * k + lane / 16 * 8]);
}

// c [16, 64] += left [16, 64] tile^T: rows of the tile are the columns of c.
__device__ inline void multiply_transposed(float (&c)[8][4], const uint32_t (&a)[4][4],
                                           const Tile& tile) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t b[4];
      load_matrices(b, &tile.at[8 * n + lane % 8 + lane / 16 * 8][16 * k + lane / 8 % 2 * 8]);
      multiply_add(c[n], a[k], b[0], b[1]);
      multiply_add(c[n + 1], a[k], b[2], b[3]);
    }
}

// c [16, 64] += left [16, 64] tile.
__device__ inline void multiply_plain(float (&c)[8][4], const uint32_t (&a)[4][4],
                                      const Tile& tile) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, &tile.at[16 * k + lane % 16][8 * n + lane / 16 * 8]);
      multiply_add(c[n], a[k], b[0], b[1]);
      multiply_add(c[n + 1], a[k], b[2], b[3]);
    }
}

__device__ inline uint32_t pack(float x, float y) {
  const __nv_bfloat162 pair = __float22bfloat162_rn(make_float2(x, y));
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// A result [16, 64] as the left operand of the next product.
__device__ inline void to_left(uint32_t (&a)[4][4], const float (&c)[8][4]) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    a[k][0] = pack(c[2 * k][0], c[2 * k][1]);
    a[k][1] = pack(c[2 * k][2], c[2 * k][3]);
    a[k][2] = pack(c[2 * k + 1][0], c[2 * k + 1][1]);
    a[k][3] = pack(c[2 * k + 1][2], c[2 * k + 1][3]);
  }
}

__device__ inline void clear(float (&c)[8][4]) {
#pragma unroll
  for (int n = 0; n < 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) c[n][i] = 0.0f;
}

}  // namespace crumb::quant::train::cuda

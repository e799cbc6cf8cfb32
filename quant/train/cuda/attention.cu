// FlashAttention-2's tiling (arXiv:2307.08691) on mma.sync: a block of four warps owns 64 queries,
// a warp 16 of them.
#include "quant/train/cuda/attention.cuh"

namespace crumb::quant::train::cuda {
namespace {

__device__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Of the two rows (half 0, 1) of a lane.
struct Softmax {
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  // scores -> weights relative to the new top; `o` is scaled to it.
  __device__ void add(float (&scores)[8][4], float (&o)[8][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = top[half];
#pragma unroll
      for (int n = 0; n < 8; ++n)
        most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      most = quad_max(most);
      const float shrink = exp2f((top[half] - most) * kLog2Scale);
      top[half] = most;
      sum[half] *= shrink;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[n][i] = exp2f((scores[n][i] - most) * kLog2Scale);
          sum[half] += scores[n][i];
          o[n][i] *= shrink;
        }
    }
  }
};

__global__ __launch_bounds__(128) void attention_kernel(AttentionSize z, const bf16* qkv, bf16* o,
                                                        float* lse) {
  __shared__ Tile queries, keys[2], values[2];
  const int64_t tile = gridDim.x - 1 - blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Head head = head_of(z, qkv, b, h);
  const auto fetch = [&](int64_t j) {
    copy_tile(keys[j % 2], head.k + j * kTile * head.pitch, head.pitch);
    copy_tile(values[j % 2], head.v + j * kTile * head.pitch, head.pitch);
  };
  copy_tile(queries, head.q + tile * kTile * head.pitch, head.pitch);
  fetch(0);
  commit_copies();
  uint32_t q[4][4];
  float out[8][4];
  clear(out);
  Softmax softmax;
  for (int64_t j = 0; j <= tile; ++j) {
    wait_copies<0>();
    __syncthreads();
    if (j == 0) load_left(q, queries, 16 * warp);
    if (j < tile) fetch(j + 1);
    commit_copies();
    float scores[8][4];
    clear(scores);
    multiply_transposed(scores, q, keys[j % 2]);
    if (j == tile) mask_diagonal(scores);
    softmax.add(scores, out);
    uint32_t p[4][4];
    to_left(p, scores);
    multiply_plain(out, p, values[j % 2]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t t = tile * kTile + 16 * warp + lane / 4 + 8 * half;
    const float sum = quad_sum(softmax.sum[half]), inverse = 1.0f / sum;
    bf16* row = o + (b * z.S + t) * z.heads * 64 + h * 64 + 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < 8; ++n)
      *reinterpret_cast<uint32_t*>(row + 8 * n) =
          pack(out[n][2 * half] * inverse, out[n][2 * half + 1] * inverse);
    if (lane % 4 == 0 && lse != nullptr)
      lse[(b * z.heads + h) * z.S + t] = softmax.top[half] * kScale + logf(sum);
  }
}

}  // namespace

void attention(const AttentionSize& size, const bf16* qkv, bf16* o, float* lse, cudaStream_t s) {
  attention_kernel<<<attention_grid(size, size.heads), 128, 0, s>>>(size, qkv, o, lse);
  launched("attention");
}

}  // namespace crumb::quant::train::cuda

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
template <int kParts>
struct Softmax {
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  // scores -> weights relative to the new top; `o` is scaled to it.
  __device__ void add(float (&scores)[8][4], float (&o)[kParts][8][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = top[half];
#pragma unroll
      for (int n = 0; n < 8; ++n)
        most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      most = quad_max(most);
      const float shrink = exp2f((top[half] - most) * kLog2Scale<kParts>);
      top[half] = most;
      sum[half] *= shrink;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[n][i] = exp2f((scores[n][i] - most) * kLog2Scale<kParts>);
          sum[half] += scores[n][i];
#pragma unroll
          for (int part = 0; part < kParts; ++part) o[part][n][i] *= shrink;
        }
    }
  }
};

template <int kParts>
struct ForwardTiles {
  WideTile<kParts> queries, keys[2], values[2];
};

template <int kParts>
__global__ __launch_bounds__(128) void attention_kernel(AttentionSize z, const bf16* qkv, bf16* o,
                                                        float* lse) {
  extern __shared__ uint4 shared[];
  auto& tiles = *reinterpret_cast<ForwardTiles<kParts>*>(shared);
  auto& queries = tiles.queries;
  auto &keys = tiles.keys, &values = tiles.values;
  const int64_t tile = gridDim.x - 1 - blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Head head = head_of(z, qkv, b, h);
  const auto fetch = [&](int64_t j) {
    copy_tiles<kParts>(keys[j % 2], head.k + j * kTile * head.pitch, head.pitch);
    copy_tiles<kParts>(values[j % 2], head.v + j * kTile * head.pitch, head.pitch);
  };
  copy_tiles<kParts>(queries, head.q + tile * kTile * head.pitch, head.pitch);
  fetch(0);
  commit_copies();
  uint32_t q[kParts][4][4];
  float out[kParts][8][4];
  for (auto& part : out) clear(part);
  Softmax<kParts> softmax;
  for (int64_t j = 0; j <= tile; ++j) {
    wait_copies<0>();
    __syncthreads();
    if (j == 0) load_left<kParts>(q, queries, 16 * warp);
    if (j < tile) fetch(j + 1);
    commit_copies();
    float scores[8][4];
    multiply_transposed<kParts>(scores, q, keys[j % 2]);
    if (j == tile) mask_diagonal(scores);
    softmax.add(scores, out);
    uint32_t p[4][4];
    to_left(p, scores);
    multiply_plain<kParts>(out, p, values[j % 2]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t t = tile * kTile + 16 * warp + lane / 4 + 8 * half;
    const float sum = quad_sum(softmax.sum[half]), inverse = 1.0f / sum;
    bf16* row = o + ((b * z.S + t) * z.heads + h) * z.width + 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < 8 * kParts; ++n) {
      const float* pair = &out[n / 8][n % 8][2 * half];
      *reinterpret_cast<uint32_t*>(row + 8 * n) = pack(pair[0] * inverse, pair[1] * inverse);
    }
    if (lane % 4 == 0 && lse != nullptr)
      lse[(b * z.heads + h) * z.S + t] = softmax.top[half] * kScale<kParts> + logf(sum);
  }
}

}  // namespace

void attention(const AttentionSize& size, const bf16* qkv, bf16* o, float* lse, cudaStream_t s) {
  const dim3 grid = attention_grid(size, size.heads);
  if (size.width == 64)
    launch_tiles(attention_kernel<1>, grid, sizeof(ForwardTiles<1>), s, size, qkv, o, lse);
  else
    launch_tiles(attention_kernel<2>, grid, sizeof(ForwardTiles<2>), s, size, qkv, o, lse);
  launched("attention");
}

}  // namespace crumb::quant::train::cuda

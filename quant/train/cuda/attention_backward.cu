// FlashAttention-2's backward pass (arXiv:2307.08691): a block owns 64 queries (dQ) or 64 keys (dK
// and dV). dQ has a pass of its own instead of atomic additions, so that gradients are the same
// bits in every run.
#include "quant/train/cuda/attention.cuh"

namespace crumb::quant::train::cuda {
namespace {

// dots = sum over a head of dO * O: eight lanes a head and token, or sixteen if it is 128 wide.
__global__ void dots_kernel(AttentionSize z, const bf16* o, const bf16* d_o, float* dots) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const auto lanes = static_cast<int>(z.width / 8);
  if (index >= z.B * z.S * z.heads * lanes) return;
  const uint4 x = *reinterpret_cast<const uint4*>(o + index * 8);
  const uint4 y = *reinterpret_cast<const uint4*>(d_o + index * 8);
  const auto* a = reinterpret_cast<const __nv_bfloat162*>(&x);
  const auto* c = reinterpret_cast<const __nv_bfloat162*>(&y);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 u = __bfloat1622float2(a[i]), v = __bfloat1622float2(c[i]);
    sum += u.x * v.x + u.y * v.y;
  }
  for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  const int64_t token = index / lanes / z.heads, h = index / lanes % z.heads;
  if (index % lanes == 0) dots[(token / z.S * z.heads + h) * z.S + token % z.S] = sum;
}

// Writes 16 rows of a gradient, turned back by RoPE unless cos is null.
template <int kParts>
__device__ void store_rows(const float (&c)[kParts][8][4], float factor, bf16* rows, int64_t pitch,
                           int64_t position, const float* cos, const float* sin) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t r = lane / 4 + 8 * half;
#pragma unroll
    for (int n = 0; n < 8 * kParts; ++n) {
      const float* pair = &c[n / 8][n % 8][2 * half];
      float x = pair[0] * factor, y = pair[1] * factor;
      if (cos != nullptr) {
        const int64_t angle = (position + r) * 32 * kParts + 4 * n + lane % 4;
        const float u = x * cos[angle] + y * sin[angle];
        y = y * cos[angle] - x * sin[angle];
        x = u;
      }
      *reinterpret_cast<uint32_t*>(rows + r * pitch + 8 * n + 2 * (lane % 4)) = pack(x, y);
    }
  }
}

template <int kParts>
struct BackwardTiles {
  WideTile<kParts> a[2], b[2];  // keys and values, or queries and dO; two stages
  float lse[2][kTile], dots[2][kTile];
};

// Scores and dP of 16 queries (rows) and 64 keys -> dS.
template <int kParts>
__device__ void score_gradients(float (&scores)[8][4], const float (&dp)[8][4],
                                const float (&lse)[2], const float (&dots)[2]) {
#pragma unroll
  for (int n = 0; n < 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      scores[n][i] =
          exp2f(scores[n][i] * kLog2Scale<kParts> - lse[i / 2]) * (dp[n][i] - dots[i / 2]);
}

template <int kParts>
__global__ __launch_bounds__(128) void attention_dq_kernel(AttentionSize z, const bf16* qkv,
                                                           const bf16* d_o, const float* lse,
                                                           const float* dots, const float* cos,
                                                           const float* sin, bf16* d_qkv) {
  extern __shared__ uint4 shared[];
  auto& tiles = *reinterpret_cast<BackwardTiles<kParts>*>(shared);
  auto &keys = tiles.a, &values = tiles.b;
  const int64_t tile = gridDim.x - 1 - blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Head head = head_of(z, qkv, b, h);
  const int64_t first = tile * kTile, wide = z.heads * z.width;
  copy_tiles<kParts>(keys[0], head.q + first * head.pitch, head.pitch);
  copy_tiles<kParts>(values[0], d_o + (b * z.S + first) * wide + h * z.width, wide);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  uint32_t q[kParts][4][4], g[kParts][4][4];
  load_left<kParts>(q, keys[0], 16 * warp);
  load_left<kParts>(g, values[0], 16 * warp);
  __syncthreads();
  float row_lse[2], row_dots[2], dq[kParts][8][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t at = (b * z.heads + h) * z.S + first + 16 * warp + lane / 4 + 8 * half;
    row_lse[half] = lse[at] * kLog2e;
    row_dots[half] = dots[at];
  }
  for (auto& part : dq) clear(part);
  const auto fetch = [&](int64_t j) {
    copy_tiles<kParts>(keys[j % 2], head.k + j * kTile * head.pitch, head.pitch);
    copy_tiles<kParts>(values[j % 2], head.v + j * kTile * head.pitch, head.pitch);
  };
  fetch(0);
  commit_copies();
  for (int64_t j = 0; j <= tile; ++j) {
    wait_copies<0>();
    __syncthreads();
    if (j < tile) fetch(j + 1);
    commit_copies();
    float scores[8][4], dp[8][4];
    multiply_transposed<kParts>(scores, q, keys[j % 2]);
    multiply_transposed<kParts>(dp, g, values[j % 2]);
    if (j == tile) mask_diagonal(scores);
    score_gradients<kParts>(scores, dp, row_lse, row_dots);
    uint32_t ds[4][4];
    to_left(ds, scores);
    multiply_plain<kParts>(dq, ds, keys[j % 2]);
  }
  store_rows<kParts>(dq, kScale<kParts>,
                     d_qkv + (b * z.S + first + 16 * warp) * head.pitch + h * z.width, head.pitch,
                     first + 16 * warp, cos, sin);
}

// All is transposed here: rows are keys, columns queries.
template <int kParts>
__global__ __launch_bounds__(128) void attention_dkv_kernel(AttentionSize z, const bf16* qkv,
                                                            const bf16* d_o, const float* lse,
                                                            const float* dots, const float* cos,
                                                            const float* sin, bf16* d_qkv) {
  extern __shared__ uint4 shared[];
  auto& stages = *reinterpret_cast<BackwardTiles<kParts>*>(shared);
  auto &queries = stages.a, &gradients = stages.b;
  auto &column_lse = stages.lse, &column_dots = stages.dots;
  const int64_t tile = blockIdx.x, kv = blockIdx.y, b = blockIdx.z;
  const int64_t group = z.heads / z.kv_heads, wide = z.heads * z.width;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Head first_head = head_of(z, qkv, b, kv * group);
  const int64_t pitch = first_head.pitch;
  copy_tiles<kParts>(queries[0], first_head.k + tile * kTile * pitch, pitch);
  copy_tiles<kParts>(gradients[0], first_head.v + tile * kTile * pitch, pitch);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  uint32_t k[kParts][4][4], v[kParts][4][4];
  load_left<kParts>(k, queries[0], 16 * warp);
  load_left<kParts>(v, gradients[0], 16 * warp);
  __syncthreads();
  const int64_t tiles = z.S / kTile - tile, steps = group * tiles;
  const auto fetch = [&](int64_t step) {
    const int64_t h = kv * group + step / tiles, at = (tile + step % tiles) * kTile;
    const int stage = static_cast<int>(step % 2);
    copy_tiles<kParts>(queries[stage], first_head.q + (step / tiles) * z.width + at * pitch, pitch);
    copy_tiles<kParts>(gradients[stage], d_o + (b * z.S + at) * wide + h * z.width, wide);
    if (threadIdx.x < kTile) {
      const int64_t row = (b * z.heads + h) * z.S + at + threadIdx.x;
      column_lse[stage][threadIdx.x] = lse[row] * kLog2e;
      column_dots[stage][threadIdx.x] = dots[row];
    }
  };
  float dk[kParts][8][4], dv[kParts][8][4];
  for (auto& part : dk) clear(part);
  for (auto& part : dv) clear(part);
  fetch(0);
  commit_copies();
  for (int64_t step = 0; step < steps; ++step) {
    const int stage = static_cast<int>(step % 2);
    wait_copies<0>();
    __syncthreads();
    if (step + 1 < steps) fetch(step + 1);
    commit_copies();
    float p[8][4], dp[8][4];
    multiply_transposed<kParts>(p, k, queries[stage]);
    const bool diagonal = step % tiles == 0;
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * n + 2 * (lane % 4) + i % 2;
        p[n][i] = exp2f(p[n][i] * kLog2Scale<kParts> - column_lse[stage][column]);
        if (diagonal && 16 * warp + lane / 4 + i / 2 * 8 > column) p[n][i] = 0.0f;
      }
    uint32_t left[4][4];
    to_left(left, p);
    multiply_plain<kParts>(dv, left, gradients[stage]);
    multiply_transposed<kParts>(dp, v, gradients[stage]);
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        p[n][i] *= dp[n][i] - column_dots[stage][8 * n + 2 * (lane % 4) + i % 2];
    to_left(left, p);
    multiply_plain<kParts>(dk, left, queries[stage]);
  }
  const int64_t position = tile * kTile + 16 * warp;
  bf16* rows = d_qkv + (b * z.S + position) * pitch;
  store_rows<kParts>(dk, kScale<kParts>, rows + (z.heads + kv) * z.width, pitch, position, cos, sin);
  store_rows<kParts>(dv, 1.0f, rows + (z.heads + z.kv_heads + kv) * z.width, pitch, position,
                     nullptr, nullptr);
}

template <int kParts>
void backward_of_width(const AttentionSize& z, const bf16* qkv, const bf16* d_o, const float* lse,
                       const float* cos, const float* sin, const float* dots, bf16* d_qkv,
                       cudaStream_t s) {
  constexpr std::size_t bytes = sizeof(BackwardTiles<kParts>);
  launch_tiles(attention_dkv_kernel<kParts>, attention_grid(z, z.kv_heads), bytes, s, z, qkv, d_o,
               lse, dots, cos, sin, d_qkv);
  launch_tiles(attention_dq_kernel<kParts>, attention_grid(z, z.heads), bytes, s, z, qkv, d_o, lse,
               dots, cos, sin, d_qkv);
}

}  // namespace

void attention_backward(const AttentionSize& size, const bf16* qkv, const bf16* o, const bf16* d_o,
                        const float* lse, const float* cos, const float* sin, float* dots,
                        bf16* d_qkv, cudaStream_t s) {
  const int64_t threads = size.B * size.S * size.heads * size.width / 8;
  dots_kernel<<<blocks_for(threads, 256), 256, 0, s>>>(size, o, d_o, dots);
  const auto run = size.width == 64 ? backward_of_width<1> : backward_of_width<2>;
  run(size, qkv, d_o, lse, cos, sin, dots, d_qkv, s);
  launched("attention_backward");
}

}  // namespace crumb::quant::train::cuda

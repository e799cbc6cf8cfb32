// RoPE and SiLU * up: eight values of bf16 a thread.
#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {
namespace {

struct alignas(16) Eight {
  __nv_bfloat162 pair[4];
};

__global__ void rope_kernel(bf16* x, int64_t T, int64_t S, int64_t width, int64_t heads,
                            int64_t head, const float* cos, const float* sin) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t eights = heads * head / 8;
  if (index >= T * eights) return;
  const int64_t t = index / eights, e = index % eights;
  auto* at = reinterpret_cast<Eight*>(x + t * width + e * 8);
  Eight v = *at;
  const int64_t angle = (t % S) * head / 2 + e % (head / 8) * 4;
  const float4 c = *reinterpret_cast<const float4*>(cos + angle);
  const float4 n = *reinterpret_cast<const float4*>(sin + angle);
  const float cs[4] = {c.x, c.y, c.z, c.w}, sn[4] = {n.x, n.y, n.z, n.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 p = __bfloat1622float2(v.pair[i]);
    v.pair[i] =
        __float22bfloat162_rn(make_float2(p.x * cs[i] - p.y * sn[i], p.x * sn[i] + p.y * cs[i]));
  }
  *at = v;
}

__global__ void silu_mul_kernel(const bf16* gate_up, int64_t T, int64_t F, bf16* y) {
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
  if (index >= T * F) return;
  const int64_t t = index / F, f = index % F;
  const Eight gate = *reinterpret_cast<const Eight*>(gate_up + t * 2 * F + f);
  const Eight up = *reinterpret_cast<const Eight*>(gate_up + t * 2 * F + F + f);
  Eight out;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 g = __bfloat1622float2(gate.pair[i]), u = __bfloat1622float2(up.pair[i]);
    out.pair[i] =
        __float22bfloat162_rn(make_float2(g.x * sigmoid(g.x) * u.x, g.y * sigmoid(g.y) * u.y));
  }
  *reinterpret_cast<Eight*>(y + index) = out;
}

__device__ float gate_gradient(float g, float u, float dy) {
  const float s = sigmoid(g);
  return dy * u * s * (1.0f + g * (1.0f - s));
}

__global__ void silu_mul_backward_kernel(const bf16* gate_up, const bf16* dy, int64_t T, int64_t F,
                                         bf16* out) {
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
  if (index >= T * F) return;
  const int64_t t = index / F, f = index % F;
  const Eight gate = *reinterpret_cast<const Eight*>(gate_up + t * 2 * F + f);
  const Eight up = *reinterpret_cast<const Eight*>(gate_up + t * 2 * F + F + f);
  const Eight in = *reinterpret_cast<const Eight*>(dy + index);
  Eight d_gate, d_up;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 g = __bfloat1622float2(gate.pair[i]), u = __bfloat1622float2(up.pair[i]);
    const float2 d = __bfloat1622float2(in.pair[i]);
    d_gate.pair[i] = __float22bfloat162_rn(
        make_float2(gate_gradient(g.x, u.x, d.x), gate_gradient(g.y, u.y, d.y)));
    d_up.pair[i] =
        __float22bfloat162_rn(make_float2(d.x * g.x * sigmoid(g.x), d.y * g.y * sigmoid(g.y)));
  }
  *reinterpret_cast<Eight*>(out + t * 2 * F + f) = d_gate;
  *reinterpret_cast<Eight*>(out + t * 2 * F + F + f) = d_up;
}

}  // namespace

void rope(bf16* x, int64_t T, int64_t S, int64_t width, int64_t heads, int64_t head,
          const float* cos, const float* sin, cudaStream_t s) {
  rope_kernel<<<blocks_for(T * heads * head / 8, 256), 256, 0, s>>>(x, T, S, width, heads, head,
                                                                    cos, sin);
  launched("rope");
}

void silu_mul(const bf16* gate_up, int64_t T, int64_t F, bf16* y, cudaStream_t s) {
  silu_mul_kernel<<<blocks_for(T * F / 8, 256), 256, 0, s>>>(gate_up, T, F, y);
  launched("silu_mul");
}

void silu_mul_backward(const bf16* gate_up, const bf16* dy, int64_t T, int64_t F, bf16* d_gate_up,
                       cudaStream_t s) {
  silu_mul_backward_kernel<<<blocks_for(T * F / 8, 256), 256, 0, s>>>(gate_up, dy, T, F, d_gate_up);
  launched("silu_mul_backward");
}

}  // namespace crumb::quant::train::cuda

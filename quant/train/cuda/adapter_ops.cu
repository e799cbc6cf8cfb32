#include "quant/train/cuda/adapter_ops.h"
#include "quant/train/cuda/launch.cuh"

namespace crumb::quant::train::cuda {
namespace {

constexpr int kThreads = 256;

__device__ int64_t own_index() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ float normal(float z) { return 0.5f * (1.0f + erff(z * 0.70710678f)); }

__global__ void place_kernel(ImageRows image, int64_t D, float* x) {
  const int64_t i = own_index();
  if (i >= image.count * D) return;
  x[image.positions[i / D] * D + i % D] = image.rows[i] + image.bias[i % D];
}

__global__ void take_kernel(const int32_t* positions, const float* x, int64_t n, int64_t D,
                            bf16* y) {
  const int64_t i = own_index();
  if (i < n) y[i] = __float2bfloat16_rn(x[positions[i / D] * D + i % D]);
}

__global__ void bias_gelu_kernel(const float* bias, int64_t n, int64_t H, float* z, bf16* y) {
  const int64_t i = own_index();
  if (i >= n) return;
  const float v = z[i] + bias[i % H];
  z[i] = v;
  y[i] = __float2bfloat16_rn(v * normal(v));
}

__global__ void gelu_backward_kernel(const float* z, int64_t n, bf16* dy) {
  const int64_t i = own_index();
  if (i >= n) return;
  const float v = z[i], density = 0.39894228f * expf(-0.5f * v * v);
  dy[i] = __float2bfloat16_rn(__bfloat162float(dy[i]) * (normal(v) + v * density));
}

__global__ void label_kernel(const float* logits, const int32_t* labels, int64_t V, float* hit) {
  const int64_t t = blockIdx.x;
  const int32_t label = labels[t];
  if (label < 0) {
    if (threadIdx.x == 0) hit[t] = 0.0f;
    return;
  }
  const float* row = logits + t * V;
  int larger = 0;
  for (int64_t v = threadIdx.x; v < V; v += kThreads) larger |= row[v] > row[label] ? 1 : 0;
  larger = __syncthreads_or(larger);
  if (threadIdx.x == 0) hit[t] = larger != 0 ? 0.0f : 1.0f;
}

__global__ void scale_kernel(float factor, int64_t n, float* x) {
  const int64_t i = own_index();
  if (i < n) x[i] *= factor;
}

}  // namespace

void place_rows(const ImageRows& image, int64_t D, float* x, cudaStream_t s) {
  place_kernel<<<blocks_for(image.count * D, kThreads), kThreads, 0, s>>>(image, D, x);
  launched("place_rows");
}

void take_rows(const int32_t* positions, const float* x, int64_t R, int64_t D, bf16* y,
               cudaStream_t s) {
  take_kernel<<<blocks_for(R * D, kThreads), kThreads, 0, s>>>(positions, x, R * D, D, y);
  launched("take_rows");
}

void bias_gelu(const float* bias, int64_t R, int64_t H, float* z, bf16* y, cudaStream_t s) {
  bias_gelu_kernel<<<blocks_for(R * H, kThreads), kThreads, 0, s>>>(bias, R * H, H, z, y);
  launched("bias_gelu");
}

void gelu_backward(const float* z, int64_t n, bf16* dy, cudaStream_t s) {
  gelu_backward_kernel<<<blocks_for(n, kThreads), kThreads, 0, s>>>(z, n, dy);
  launched("gelu_backward");
}

void label_is_top(const float* logits, const int32_t* labels, int64_t T, int64_t V, float* hit,
                  cudaStream_t s) {
  label_kernel<<<static_cast<unsigned>(T), kThreads, 0, s>>>(logits, labels, V, hit);
  launched("label_is_top");
}

void scale(float factor, int64_t n, float* x, cudaStream_t s) {
  scale_kernel<<<blocks_for(n, kThreads), kThreads, 0, s>>>(factor, n, x);
  launched("scale");
}

}  // namespace crumb::quant::train::cuda

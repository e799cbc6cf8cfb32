#include <cmath>

#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/noise.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {
namespace {

constexpr int kThreads = 256;

struct Levels {
  float alpha, step;
  bool noisy;
  uint64_t seed, first;
  __device__ bool inside(float x) const { return x > -alpha && x < alpha; }
  __device__ float at(float x, int64_t i) const {
    if (!inside(x)) return x < 0 ? -alpha : alpha;
    return noisy ? x + step * noise_of(seed, first + static_cast<uint64_t>(i))
                 : step * rintf(x / step);
  }
};
Levels levels_of(const InputQuant& q) {
  const float alpha = std::exp(q.log_alpha);
  return {alpha, alpha / static_cast<float>((1 << (q.bits - 1)) - 1), q.noisy, q.seed, q.first};
}

__global__ void quantize_input_kernel(Levels levels, const bf16* x, int64_t n, bf16* y) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    y[i] = __float2bfloat16(levels.at(__bfloat162float(x[i]), i));
}

__global__ void quantize_input_backward_kernel(Levels levels, const bf16* x, int64_t n, bf16* d,
                                               double* partial) {
  double pull = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const float value = __bfloat162float(x[i]), y = levels.at(value, i);
    const bool inside = levels.inside(value);
    pull += static_cast<double>(__bfloat162float(d[i]) * (inside ? y - value : y));
    if (!inside) d[i] = __float2bfloat16(0.0f);
  }
  const double total = block_sum<kThreads>(pull);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void total_kernel(const double* partial, double* result) {
  double total = 0;
  for (int64_t i = 0; i < kSumBlocks; ++i) total += partial[i];
  *result += total;
}

}  // namespace

void quantize_input(const InputQuant& quant, const bf16* x, int64_t n, bf16* y, cudaStream_t s) {
  quantize_input_kernel<<<1056, kThreads, 0, s>>>(levels_of(quant), x, n, y);
  launched("quantize_input");
}

void quantize_input_backward(const InputQuant& quant, const bf16* x, int64_t n, bf16* d,
                             double* partial, double* d_log_alpha, cudaStream_t s) {
  quantize_input_backward_kernel<<<kSumBlocks, kThreads, 0, s>>>(levels_of(quant), x, n, d,
                                                                 partial);
  total_kernel<<<1, 1, 0, s>>>(partial, d_log_alpha);
  launched("quantize_input_backward");
}

}  // namespace crumb::quant::train::cuda

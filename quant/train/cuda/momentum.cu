// Blocks (p, i) of a grid: share p of matrix i.
#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void nesterov_kernel(MatrixSet set, float momentum, const double* squares, double limit,
                                float* gradient, float* mean, double* partial) {
  __shared__ double shared[kThreads];
  const double norm = sqrt(*squares);
  const float factor = norm > limit ? static_cast<float>(limit / norm) : 1.0f;
  float* g = gradient + blockIdx.y * set.stride;
  float* m = mean + blockIdx.y * set.stride;
  double sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < set.size;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const float x = g[i] * factor;
    const float next = momentum * m[i] + x;
    const float u = x + momentum * next;
    m[i] = next;
    g[i] = u;
    sum += static_cast<double>(u) * static_cast<double>(u);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) partial[blockIdx.y * kMuonBlocks + blockIdx.x] = shared[0];
}

__global__ void normalise_kernel(MatrixSet set, const float* u, const double* partial, float margin,
                                 bf16* x) {
  double sum = 0;
  for (int64_t p = 0; p < kMuonBlocks; ++p) sum += partial[blockIdx.y * kMuonBlocks + p];
  const float factor = sum > 0 ? static_cast<float>(1 / (margin * sqrt(sum))) : 0.0f;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < set.size;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    x[blockIdx.y * set.size + i] = __float2bfloat16(u[blockIdx.y * set.stride + i] * factor);
}

__global__ void take_step_kernel(MatrixSet set, float length, const bf16* x, float* w) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < set.size;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    w[blockIdx.y * set.stride + i] -= length * __bfloat162float(x[blockIdx.y * set.size + i]);
}

dim3 grid_of(const MatrixSet& set) {
  return {static_cast<unsigned>(kMuonBlocks), static_cast<unsigned>(set.count)};
}

}  // namespace

void nesterov(const MatrixSet& set, float momentum, const double* squares, double limit,
              float* gradient, float* mean, double* partial, cudaStream_t s) {
  nesterov_kernel<<<grid_of(set), kThreads, 0, s>>>(set, momentum, squares, limit, gradient, mean,
                                                    partial);
  launched("nesterov");
}

void normalise(const MatrixSet& set, const float* u, const double* partial, float margin, bf16* x,
               cudaStream_t s) {
  normalise_kernel<<<grid_of(set), kThreads, 0, s>>>(set, u, partial, margin, x);
  launched("normalise");
}

void take_step(const MatrixSet& set, float length, const bf16* x, float* w, cudaStream_t s) {
  take_step_kernel<<<grid_of(set), kThreads, 0, s>>>(set, length, x, w);
  launched("take_step");
}

}  // namespace crumb::quant::train::cuda

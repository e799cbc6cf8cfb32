// Inside .cu files: the error of the launch before, named.
#pragma once
#include "quant/train/cuda/device.h"

namespace crumb::quant::train::cuda {

inline void launched(const char* kernel) { require(cudaGetLastError(), kernel); }

inline int blocks_for(int64_t n, int64_t each) { return static_cast<int>((n + each - 1) / each); }

#ifdef __CUDACC__
__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
// The sum over a block of kThreads threads, in a fixed order; of meaning in thread 0.
template <int kThreads>
__device__ double block_sum(double value) {
  __shared__ double shared[kThreads];
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  return shared[0];
}
__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }
#endif

}  // namespace crumb::quant::train::cuda

#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {
namespace {

constexpr int kThreads = 256;

template <bool kSquares>
__global__ void sum_kernel(const float* x, int64_t n, double* partial) {
  double sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const double v = x[i];
    sum += kSquares ? v * v : v;
  }
  const double total = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void total_kernel(const double* partial, double* result) {
  double total = 0;
  for (int64_t i = 0; i < kSumBlocks; ++i) total += partial[i];
  *result = total;
}

__global__ void adam_kernel(AdamRates a, const double* squares, double limit, const float* gradient,
                            int64_t n, float* w, float* mean, float* square) {
  const double norm = sqrt(*squares);
  const float factor = norm > limit ? static_cast<float>(limit / norm) : 1.0f;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const float x = gradient[i] * factor;
    const float m = a.beta1 * mean[i] + (1.0f - a.beta1) * x;
    const float v = a.beta2 * square[i] + (1.0f - a.beta2) * (x * x);
    mean[i] = m;
    square[i] = v;
    const float move = m * a.mean_factor / (sqrtf(v * a.square_factor) + a.eps);
    w[i] -= a.rate * move + a.decay * w[i];
  }
}

template <bool kSquares>
void reduce(const float* x, int64_t n, double* partial, double* result, cudaStream_t s) {
  sum_kernel<kSquares><<<kSumBlocks, kThreads, 0, s>>>(x, n, partial);
  total_kernel<<<1, 1, 0, s>>>(partial, result);
  launched("sum");
}

}  // namespace

void sum(const float* x, int64_t n, double* partial, double* result, cudaStream_t s) {
  reduce<false>(x, n, partial, result, s);
}
void square_sum(const float* x, int64_t n, double* partial, double* result, cudaStream_t s) {
  reduce<true>(x, n, partial, result, s);
}

void adam(const AdamRates& step, const double* squares, double limit, const float* gradient,
          int64_t n, float* w, float* mean, float* square, cudaStream_t s) {
  adam_kernel<<<1056, kThreads, 0, s>>>(step, squares, limit, gradient, n, w, mean, square);
  launched("adam");
}

}  // namespace crumb::quant::train::cuda

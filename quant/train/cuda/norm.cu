// One warp a row; lane l holds columns 2l, 2l + 1 of every 64.
#include "models/errors.h"
#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {
namespace {

constexpr int kWarps = 8;

// One block a row of the table.
__global__ void embed_backward_kernel(const int32_t* ids, const int32_t* starts,
                                      const int32_t* positions, const float* dx, int64_t D,
                                      float* dtable) {
  const int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
  float* row = dtable + ids[blockIdx.x] * D;
  for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
    float sum = 0;
    for (int i = begin; i < end; ++i) sum += dx[positions[i] * D + d];
    row[d] += sum;
  }
}

__global__ void embed_kernel(const int32_t* ids, const bf16* table, int64_t T, int64_t D,
                             float* x) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 2;
  if (at >= T * D) return;
  const int64_t t = at / D, d = at % D;
  const auto pair = *reinterpret_cast<const __nv_bfloat162*>(table + ids[t] * D + d);
  *reinterpret_cast<float2*>(x + at) = __bfloat1622float2(pair);
}

__global__ void round_kernel(const float* x, int64_t n, bf16* y) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 2;
  if (at < n)
    *reinterpret_cast<__nv_bfloat162*>(y + at) =
        __float22bfloat162_rn(*reinterpret_cast<const float2*>(x + at));
}

template <int P>
__device__ float load_row(const float* x, int lane, float2 (&v)[P]) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < P; ++i) {
    v[i] = *reinterpret_cast<const float2*>(x + 64 * i + 2 * lane);
    squares += v[i].x * v[i].x + v[i].y * v[i].y;
  }
  return warp_sum(squares);
}

template <int P>
__global__ void rmsnorm_kernel(const float* x, const float* gain, float eps, int64_t T, bf16* y) {
  constexpr int D = 64 * P;
  const int lane = threadIdx.x % 32;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (t >= T) return;
  float2 v[P];
  const float r = rsqrtf(load_row<P>(x + t * D, lane, v) / D + eps);
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const float2 g = *reinterpret_cast<const float2*>(gain + 64 * i + 2 * lane);
    *reinterpret_cast<__nv_bfloat162*>(y + t * D + 64 * i + 2 * lane) =
        __float22bfloat162_rn(make_float2(v[i].x * r * g.x, v[i].y * r * g.y));
  }
}

template <int P>
__global__ void rmsnorm_backward_kernel(const float* x, const float* gain, float eps,
                                        const bf16* dy, int64_t T, float* residual, bf16* rounded,
                                        float* partial) {
  constexpr int D = 64 * P;
  __shared__ float2 shared[kWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float2 gain_sum[P];
#pragma unroll
  for (int i = 0; i < P; ++i) gain_sum[i] = make_float2(0, 0);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t t = static_cast<int64_t>(blockIdx.x) * kWarps + warp; t < T; t += stride) {
    float2 v[P], g[P];
    const float r = rsqrtf(load_row<P>(x + t * D, lane, v) / D + eps);
    float dot = 0;
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const int64_t at = t * D + 64 * i + 2 * lane;
      const float2 d = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(dy + at));
      const float2 w = *reinterpret_cast<const float2*>(gain + 64 * i + 2 * lane);
      v[i].x *= r;
      v[i].y *= r;
      gain_sum[i].x += d.x * v[i].x;
      gain_sum[i].y += d.y * v[i].y;
      g[i] = make_float2(d.x * w.x, d.y * w.y);
      dot += g[i].x * v[i].x + g[i].y * v[i].y;
    }
    dot = warp_sum(dot) / D;
#pragma unroll
    for (int i = 0; i < P; ++i) {
      const int64_t at = t * D + 64 * i + 2 * lane;
      float2 out = *reinterpret_cast<const float2*>(residual + at);
      out.x += r * (g[i].x - dot * v[i].x);
      out.y += r * (g[i].y - dot * v[i].y);
      *reinterpret_cast<float2*>(residual + at) = out;
      if (rounded != nullptr)
        *reinterpret_cast<__nv_bfloat162*>(rounded + at) = __float22bfloat162_rn(out);
    }
  }
#pragma unroll
  for (int i = 0; i < P; ++i) {
    shared[warp][lane] = gain_sum[i];
    __syncthreads();
    if (warp == 0) {
      float2 total = shared[0][lane];
      for (int w = 1; w < kWarps; ++w) {
        total.x += shared[w][lane].x;
        total.y += shared[w][lane].y;
      }
      *reinterpret_cast<float2*>(partial + static_cast<int64_t>(blockIdx.x) * D + 64 * i +
                                 2 * lane) = total;
    }
    __syncthreads();
  }
}

__global__ void column_sums(const float* partial, int64_t rows, int64_t D, float* out) {
  const int64_t d = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (d >= D) return;
  float sum = 0;
  for (int64_t i = 0; i < rows; ++i) sum += partial[i * D + d];
  out[d] = sum;
}

__global__ void add_bias_kernel(const float* bias, int64_t T, int64_t N, bf16* y) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 2;
  if (at >= T * N) return;
  auto* pair = reinterpret_cast<__nv_bfloat162*>(y + at);
  const float2 v = __bfloat1622float2(*pair), b = *reinterpret_cast<const float2*>(bias + at % N);
  *pair = __float22bfloat162_rn(make_float2(v.x + b.x, v.y + b.y));
}

// Block (i, j) sums rows i, i + gridDim.x, .. of 64 pairs of columns.
__global__ void bias_backward_kernel(const bf16* dy, int64_t T, int64_t N, float* partial) {
  const int64_t n = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * 2;
  if (n >= N) return;
  float2 sum = make_float2(0, 0);
  for (int64_t t = blockIdx.x; t < T; t += gridDim.x) {
    const float2 d = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(dy + t * N + n));
    sum.x += d.x;
    sum.y += d.y;
  }
  *reinterpret_cast<float2*>(partial + static_cast<int64_t>(blockIdx.x) * N + n) = sum;
}

__global__ void add_kernel(const float* x, int64_t n, float* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) y[i] += x[i];
}

// Calls work<P>() for D = 64 P; the widths of the models there are.
template <class Work>
void for_width(int64_t D, const Work& work) {
  switch (D) {
    case 64:
      return work.template operator()<1>();
    case 128:
      return work.template operator()<2>();
    case 576:
      return work.template operator()<9>();
    case 896:
      return work.template operator()<14>();
    case 960:
      return work.template operator()<15>();
    case 1536:
      return work.template operator()<24>();
    case 2048:
      return work.template operator()<32>();
    default:
      throw Error(ExitCode::kUsage,
                  "width not supported on the GPU (dim: expected 64, 128, 576, 896, 960, 1536 or "
                  "2048, found " +
                      std::to_string(D) + ")");
  }
}

}  // namespace

void embed_backward(const int32_t* ids, const int32_t* starts, const int32_t* positions,
                    int64_t count, const float* dx, int64_t D, float* dtable, cudaStream_t s) {
  embed_backward_kernel<<<static_cast<int>(count), 192, 0, s>>>(ids, starts, positions, dx, D,
                                                                dtable);
  launched("embed_backward");
}

void embed(const int32_t* ids, const bf16* table, int64_t T, int64_t D, float* x, cudaStream_t s) {
  embed_kernel<<<blocks_for(T * D / 2, 256), 256, 0, s>>>(ids, table, T, D, x);
  launched("embed");
}

void round_to_bf16(const float* x, int64_t n, bf16* y, cudaStream_t s) {
  round_kernel<<<blocks_for(n / 2, 256), 256, 0, s>>>(x, n, y);
  launched("round_to_bf16");
}

void rmsnorm(const float* x, const float* gain, float eps, int64_t T, int64_t D, bf16* y,
             cudaStream_t s) {
  for_width(D, [&]<int P>() {
    rmsnorm_kernel<P><<<blocks_for(T, kWarps), 32 * kWarps, 0, s>>>(x, gain, eps, T, y);
  });
  launched("rmsnorm");
}

void rmsnorm_backward(const float* x, const float* gain, float eps, const bf16* dy, int64_t T,
                      int64_t D, float* residual_gradient, bf16* rounded, float* dgain,
                      float* partial, cudaStream_t s) {
  for_width(D, [&]<int P>() {
    rmsnorm_backward_kernel<P><<<kNormBlocks, 32 * kWarps, 0, s>>>(
        x, gain, eps, dy, T, residual_gradient, rounded, partial);
  });
  column_sums<<<blocks_for(D, 64), 64, 0, s>>>(partial, kNormBlocks, D, dgain);
  launched("rmsnorm_backward");
}

void add_bias(const float* bias, int64_t T, int64_t N, bf16* y, cudaStream_t s) {
  add_bias_kernel<<<blocks_for(T * N / 2, 256), 256, 0, s>>>(bias, T, N, y);
  launched("add_bias");
}

void bias_backward(const bf16* dy, int64_t T, int64_t N, float* dbias, float* partial,
                   cudaStream_t s) {
  const dim3 grid(kNormBlocks, static_cast<unsigned>(blocks_for(N, 128)));
  bias_backward_kernel<<<grid, 64, 0, s>>>(dy, T, N, partial);
  column_sums<<<blocks_for(N, 64), 64, 0, s>>>(partial, kNormBlocks, N, dbias);
  launched("bias_backward");
}

void add(const float* x, int64_t n, float* y, cudaStream_t s) {
  add_kernel<<<blocks_for(n, 256), 256, 0, s>>>(x, n, y);
  launched("add");
}

}  // namespace crumb::quant::train::cuda

// One warp a row; lane l holds columns 2l, 2l + 1 of a block of 64, which is a Hadamard block and
// two, one or a part of the groups that share a scale. Codes are decided in
// double as quant/grid.h does, so that they are the host's, bit for bit.
#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/noise.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {
namespace {

constexpr int kWarps = 4;

// The normalised Hadamard transform of the warp's 64 values.
__device__ float2 hadamard64(float2 v, int lane) {
  v = make_float2(v.x + v.y, v.x - v.y);
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float x = __shfl_xor_sync(0xffffffffu, v.x, step);
    const float y = __shfl_xor_sync(0xffffffffu, v.y, step);
    const bool upper = (lane & step) != 0;
    v = make_float2(upper ? x - v.x : v.x + x, upper ? y - v.y : v.y + y);
  }
  return make_float2(v.x * 0.125f, v.y * 0.125f);
}

// The lane's pair of a row's plain gradient at column k, in the masters' space.
__device__ float2 rotated(const float* pair, const float* signs, int64_t k, int lane) {
  const float2 g = *reinterpret_cast<const float2*>(pair);
  if (signs == nullptr) return g;
  const float2 sign = *reinterpret_cast<const float2*>(signs + k);
  return hadamard64(make_float2(g.x * sign.x, g.y * sign.y), lane);
}

// The stored scale: binary16, clamped like quant::nearest_scale. A group of zeros keeps its 0.
__device__ float stored_scale(float log_scale) {
  if (log_scale == -INFINITY) return 0.0f;
  const double scale = exp(static_cast<double>(log_scale));
  const double clamped = fmin(fmax(scale, 5.9604644775390625e-8), 65504.0);
  return __half2float(__float2half_rn(static_cast<float>(clamped)));
}

__device__ int code_of(float w, double scale, float zero, float top) {
  double code = static_cast<double>(w) / scale + (static_cast<double>(zero) + 0.5);
  code = code > 0 ? code : 0;
  code = code < top ? code : top;
  return static_cast<int>(code);
}

// Scale and zero of one group of a row.
struct Level {
  float scale, zero;
  __device__ float value(int code) const { return scale * (static_cast<float>(code) - zero); }
};

// The groups of row n: [N, groups] scales, and zeros on the asym grid.
struct GroupedRow {
  const GridSpec& grid;
  const float* log_scale;
  const uint8_t* zeros;  // null: the grid's
  int64_t group;         // columns
  __device__ GroupedRow(const GridSpec& spec, const float* log_scales, int64_t n, int64_t K)
      : grid(spec), group(spec.group == 0 ? K : spec.group) {
    const int64_t first = n * ((K + group - 1) / group);
    log_scale = log_scales + first;
    zeros = spec.zeros == nullptr ? nullptr : spec.zeros + first;
  }
  __device__ Level at(int64_t g) const {
    return {stored_scale(log_scale[g] + grid.log_factor),
            zeros == nullptr ? grid.zero : static_cast<float>(zeros[g])};
  }
  // Whether column k, the first of a lane's pair in a block of 64 that begins at `block`, is in
  // another group than the lane's pair of the block before.
  __device__ bool enters(int64_t block) const { return block % max(group, int64_t{64}) == 0; }
  // Whether a group ends with the block of 64 that begins there.
  __device__ bool leaves(int64_t block, int64_t K) const {
    return block + 64 == K || (block + 64) % max(group, int64_t{64}) == 0;
  }
};

// Over groups of 32 columns: the sum of the lane's half of the warp.
__device__ float half_warp_sum(float x) {
  for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

__global__ void fake_quantize_kernel(const float* master, const float* log_scale, GridSpec grid,
                                     const float* signs, int64_t N, int64_t K, bf16* w,
                                     uint8_t* codes) {
  const int lane = threadIdx.x % 32;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (n >= N) return;
  const GroupedRow row(grid, log_scale, n, K);
  const auto top = static_cast<float>((1 << grid.bits) - 1);
  Level level{};
  for (int64_t k = 2 * lane; k < K; k += 64) {
    if (row.enters(k - 2 * lane)) level = row.at(k / row.group);
    const float2 m = *reinterpret_cast<const float2*>(master + n * K + k);
    const int a = code_of(m.x, level.scale, level.zero, top);
    const int b = code_of(m.y, level.scale, level.zero, top);
    if (codes != nullptr)
      *reinterpret_cast<uchar2*>(codes + n * K + k) =
          make_uchar2(static_cast<uint8_t>(a), static_cast<uint8_t>(b));
    float2 v = make_float2(level.value(a), level.value(b));
    if (signs != nullptr) {
      const float2 sign = *reinterpret_cast<const float2*>(signs + k);
      v = hadamard64(v, lane);
      v = make_float2(v.x * sign.x, v.y * sign.y);
    }
    if (w != nullptr) *reinterpret_cast<__nv_bfloat162*>(w + n * K + k) = __float22bfloat162_rn(v);
  }
}

__global__ void fake_quantize_backward_kernel(const float* master, const float* log_scale,
                                              GridSpec grid, const float* signs, int64_t N,
                                              int64_t K, float* gradient, float* d_log_scale) {
  const int lane = threadIdx.x % 32;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (n >= N) return;
  const GroupedRow row(grid, log_scale, n, K);
  float* d_row = d_log_scale + (row.log_scale - log_scale);
  const auto top = static_cast<float>((1 << grid.bits) - 1);
  Level level{};
  float low = 0, high = 0;
  float pull = 0;  // dL/dlog_scale of the lane's columns of the group
  const auto masked = [&](float m, float g) {
    const float value = level.value(code_of(m, level.scale, level.zero, top));
    const bool inside = m > low && m < high;
    pull += g * (value - (inside ? m : 0.0f));
    return inside ? g : 0.0f;
  };
  for (int64_t k = 2 * lane; k < K; k += 64) {
    const int64_t block = k - 2 * lane;
    if (row.enters(block)) {
      level = row.at(k / row.group);
      low = level.scale * (-0.5f - level.zero);
      high = level.scale * (top + 0.5f - level.zero);
    }
    const float2 m = *reinterpret_cast<const float2*>(master + n * K + k);
    const float2 g = rotated(gradient + n * K + k, signs, k, lane);
    *reinterpret_cast<float2*>(gradient + n * K + k) =
        make_float2(masked(m.x, g.x), masked(m.y, g.y));
    if (!row.leaves(block, K)) continue;
    const bool halves = row.group == 32;
    pull = halves ? half_warp_sum(pull) : warp_sum(pull);
    if (lane == 0 || (halves && lane == 16)) d_row[k / row.group] = pull;
    pull = 0;
  }
}

// quant/train/noise.h: the levels of a row, as on the host.
struct NoisyRow {
  float step, alpha, high;
  struct Value {
    float y, e;
    bool inside;
  };
  __device__ NoisyRow(float log_scale, const NoiseSpec& noise) {
    const double scale = exp(static_cast<double>(log_scale));
    step = static_cast<float>(scale * noise.steps.step);
    alpha = static_cast<float>(scale * noise.steps.alpha);
    high = noise.lsq ? alpha - step : alpha;
  }
  __device__ Value at(float w, float eps) const {
    if (w <= -alpha) return {-alpha, 0.0f, false};
    if (w >= high) return {high, high - alpha, false};
    return {w + eps * step, eps * step, true};
  }
};

__global__ void noisy_weights_kernel(const float* master, const float* log_scale, NoiseSpec noise,
                                     const float* signs, int64_t N, int64_t K, bf16* w) {
  const int lane = threadIdx.x % 32;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (n >= N) return;
  const NoisyRow row(log_scale[n], noise);
  for (int64_t k = 2 * lane; k < K; k += 64) {
    const float2 m = *reinterpret_cast<const float2*>(master + n * K + k);
    const uint64_t index = noise.first + static_cast<uint64_t>(n * K + k);
    float2 v = make_float2(row.at(m.x, noise_of(noise.seed, index)).y,
                           row.at(m.y, noise_of(noise.seed, index + 1)).y);
    if (signs != nullptr) {
      const float2 sign = *reinterpret_cast<const float2*>(signs + k);
      v = hadamard64(v, lane);
      v = make_float2(v.x * sign.x, v.y * sign.y);
    }
    *reinterpret_cast<__nv_bfloat162*>(w + n * K + k) = __float22bfloat162_rn(v);
  }
}

__global__ void noisy_weights_backward_kernel(const float* master, const float* log_scale,
                                              NoiseSpec noise, const float* signs, int64_t N,
                                              int64_t K, float* gradient, float* d_log_scale,
                                              float* d_bits) {
  const int lane = threadIdx.x % 32;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (n >= N) return;
  const NoisyRow row(log_scale[n], noise);
  float pull = 0, error = 0;
  const auto masked = [&](float m, float g, uint64_t index) {
    const NoisyRow::Value value = row.at(m, noise_of(noise.seed, index));
    pull += g * (value.inside ? value.e : value.y);
    error += g * value.e;
    return value.inside ? g : 0.0f;
  };
  for (int64_t k = 2 * lane; k < K; k += 64) {
    const float2 m = *reinterpret_cast<const float2*>(master + n * K + k);
    const float2 g = rotated(gradient + n * K + k, signs, k, lane);
    const uint64_t index = noise.first + static_cast<uint64_t>(n * K + k);
    *reinterpret_cast<float2*>(gradient + n * K + k) =
        make_float2(masked(m.x, g.x, index), masked(m.y, g.y, index + 1));
  }
  pull = warp_sum(pull);
  error = warp_sum(error);
  if (lane != 0) return;
  d_log_scale[n] = pull;
  d_bits[n] = error;
}

__global__ void count_changes_kernel(const uint8_t* a, const uint8_t* b, int64_t n,
                                     unsigned long long* changed) {
  int count = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x)
    count += a[i] != b[i];
  count = __reduce_add_sync(0xffffffffu, count);
  if (threadIdx.x % 32 == 0) atomicAdd(changed, static_cast<unsigned long long>(count));
}

}  // namespace

void fake_quantize(const float* master, const float* log_scale, const GridSpec& grid,
                   const float* signs, int64_t N, int64_t K, bf16* w, uint8_t* codes,
                   cudaStream_t s) {
  fake_quantize_kernel<<<blocks_for(N, kWarps), 32 * kWarps, 0, s>>>(master, log_scale, grid, signs,
                                                                     N, K, w, codes);
  launched("fake_quantize");
}

void fake_quantize_backward(const float* master, const float* log_scale, const GridSpec& grid,
                            const float* signs, int64_t N, int64_t K, float* gradient,
                            float* d_log_scale, cudaStream_t s) {
  fake_quantize_backward_kernel<<<blocks_for(N, kWarps), 32 * kWarps, 0, s>>>(
      master, log_scale, grid, signs, N, K, gradient, d_log_scale);
  launched("fake_quantize_backward");
}

void noisy_weights(const float* master, const float* log_scale, const NoiseSpec& noise,
                   const float* signs, int64_t N, int64_t K, bf16* w, cudaStream_t s) {
  noisy_weights_kernel<<<blocks_for(N, kWarps), 32 * kWarps, 0, s>>>(master, log_scale, noise,
                                                                     signs, N, K, w);
  launched("noisy_weights");
}

void noisy_weights_backward(const float* master, const float* log_scale, const NoiseSpec& noise,
                            const float* signs, int64_t N, int64_t K, float* gradient,
                            float* d_log_scale, float* d_bits, cudaStream_t s) {
  noisy_weights_backward_kernel<<<blocks_for(N, kWarps), 32 * kWarps, 0, s>>>(
      master, log_scale, noise, signs, N, K, gradient, d_log_scale, d_bits);
  launched("noisy_weights_backward");
}

void count_changes(const uint8_t* a, const uint8_t* b, int64_t n, unsigned long long* changed,
                   cudaStream_t s) {
  count_changes_kernel<<<1056, 256, 0, s>>>(a, b, n, changed);
  launched("count_changes");
}

}  // namespace crumb::quant::train::cuda

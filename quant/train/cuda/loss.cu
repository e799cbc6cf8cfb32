// One block a token. A first pass finds both log-sum-exps and both KL divergences with running
// maxima; JSD needs a second for its own two sums; the last pass writes the gradient. The kernel is
// bound by memory: the student's row stays in shared memory where it fits (V <= 56 k), and of the
// teacher's rows in flight all 132 stay in the L2 cache, since the student's pass it by.
#include <cmath>

#include "quant/train/cuda/launch.cuh"
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr std::size_t kMostShared = 220 * 1024;

// Sums relative to the running maximum: sum e^(x - top), sum e^(x - top) (x - y).
struct Side {
  float top = -INFINITY, sum = 0, gap = 0;
  __device__ void raise(float most) {
    if (most <= top) return;
    const float shrink = __expf(top - most);
    sum *= shrink;
    gap *= shrink;
    top = most;
  }
  __device__ void add(float x, float y) {
    const float e = __expf(x - top);
    sum += e;
    gap += e * (x - y);
  }
  __device__ void merge(const Side& other) {
    raise(other.top);
    if (other.top == -INFINITY) return;
    const float shrink = __expf(other.top - top);
    sum += other.sum * shrink;
    gap += other.gap * shrink;
  }
};

__device__ Side shuffle(const Side& x, int step) {
  return {__shfl_xor_sync(0xffffffffu, x.top, step), __shfl_xor_sync(0xffffffffu, x.sum, step),
          __shfl_xor_sync(0xffffffffu, x.gap, step)};
}

// Of the whole block, the same for all threads. Merged in the order of the warps.
__device__ Side block_merge(Side x, Side* shared) {
  for (int step = 1; step < 32; step *= 2) {
    // Both lanes of a pair merge lower into upper order, so that they agree bit for bit.
    const Side other = shuffle(x, step);
    const bool upper = (threadIdx.x & static_cast<unsigned>(step)) != 0;
    Side low = upper ? other : x;
    low.merge(upper ? x : other);
    x = low;
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  Side total = shared[0];
  for (int w = 1; w < kWarps; ++w) total.merge(shared[w]);
  __syncthreads();
  return total;
}

__device__ float block_sum(float x, float* shared) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared[w];
  __syncthreads();
  return total;
}

// log(q / m) and log(p / m), m = beta p + (1 - beta) q, from lp - lq: only small exponentials.
__device__ float2 to_mixture(float difference, float beta) {
  const float ratio = __expf(-fabsf(difference));  // of the smaller to the larger
  if (difference > 0) {
    const float log_p = -__logf(beta + (1.0f - beta) * ratio);
    return make_float2(log_p - difference, log_p);
  }
  const float log_q = -__logf(beta * ratio + (1.0f - beta));
  return make_float2(log_q, log_q + difference);
}

// Both rows; every thread meets the same columns in every pass, so `held` needs no barrier.
struct Rows {
  const float *teacher, *student;
  float* held;  // the student's row in shared memory, null where it does not fit
  int64_t V;
  template <class Work>
  __device__ void first_pass(const Work& work) const {
    for (int64_t v = 4 * threadIdx.x; v < V; v += 4 * kThreads) {
      const float4 y = __ldcs(reinterpret_cast<const float4*>(student + v));
      if (held != nullptr) *reinterpret_cast<float4*>(held + v) = y;
      work(v, *reinterpret_cast<const float4*>(teacher + v), y);
    }
  }
  template <class Work>
  __device__ void later_pass(const Work& work) const {
    const float* row = held != nullptr ? held : student;
    for (int64_t v = 4 * threadIdx.x; v < V; v += 4 * kThreads)
      work(v, *reinterpret_cast<const float4*>(teacher + v),
           *reinterpret_cast<const float4*>(row + v));
  }
};

__global__ __launch_bounds__(kThreads) void loss_kernel(
    LossOptions options, const float* teachers, const float* students, const int32_t* labels,
    float weight, int64_t V, bool hold, float* losses, float* kls, float* agrees, bf16* gradients) {
  extern __shared__ float4 shared_row[];
  __shared__ Side shared_sides[kWarps];
  __shared__ float shared_floats[kWarps];
  const int64_t t = blockIdx.x;
  const Rows rows{teachers + t * V, students + t * V,
                  hold ? reinterpret_cast<float*>(shared_row) : nullptr, V};
  Side p, q;
  rows.first_pass([&](int64_t, const float4& x, const float4& y) {
    p.raise(fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w)));
    q.raise(fmaxf(fmaxf(y.x, y.y), fmaxf(y.z, y.w)));
    p.add(x.x, y.x);
    p.add(x.y, y.y);
    p.add(x.z, y.z);
    p.add(x.w, y.w);
    q.add(y.x, x.x);
    q.add(y.y, x.y);
    q.add(y.z, x.z);
    q.add(y.w, x.w);
  });
  p = block_merge(p, shared_sides);
  q = block_merge(q, shared_sides);
  const float p_lse = p.top + __logf(p.sum), q_lse = q.top + __logf(q.sum);
  const float forward_kl = fmaxf(p.gap / p.sum - p_lse + q_lse, 0.0f);
  const float reverse_kl = fmaxf(q.gap / q.sum - q_lse + p_lse, 0.0f);
  const float shift = q_lse - p_lse;  // lp - lq = x - y + shift

  const int32_t label = labels == nullptr ? 0 : labels[t];
  if (label < 0) weight = 0.0f;
  float loss = 0, center = 0;  // center: what the gradient's bracket subtracts
  if (options.kind == LossKind::kForwardKl) loss = forward_kl;
  if (options.kind == LossKind::kReverseKl) loss = center = reverse_kl;
  if (options.kind == LossKind::kCakld) {
    center = reverse_kl;
    loss = options.beta * reverse_kl + (1.0f - options.beta) * forward_kl;
  }
  if (options.kind == LossKind::kCrossEntropy && label >= 0) loss = q_lse - rows.student[label];
  if (options.kind == LossKind::kJsd) {
    float p_part = 0, q_part = 0;
    rows.later_pass([&](int64_t, const float4& x, const float4& y) {
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 mixed = to_mixture(xs[i] - ys[i] + shift, options.beta);
        q_part += __expf(ys[i] - q_lse) * mixed.x;
        p_part += __expf(xs[i] - p_lse) * mixed.y;
      }
    });
    center = block_sum(q_part, shared_floats);
    p_part = block_sum(p_part, shared_floats);
    loss = options.beta * p_part + (1.0f - options.beta) * center;
  }

  float agree = 0;  // whether a largest logit of both stands at one place
  rows.later_pass([&](int64_t v, const float4& x, const float4& y) {
    const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
    float d[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float b = __expf(ys[i] - q_lse);
      const float difference = xs[i] - ys[i] + shift;
      if (xs[i] == p.top && ys[i] == q.top) agree = 1;
      switch (options.kind) {
        case LossKind::kForwardKl:
          d[i] = b - __expf(xs[i] - p_lse);
          break;
        case LossKind::kReverseKl:
          d[i] = b * (-difference - center);
          break;
        case LossKind::kCakld:
          d[i] = options.beta * b * (-difference - center) +
                 (1.0f - options.beta) * (b - __expf(xs[i] - p_lse));
          break;
        case LossKind::kCrossEntropy:
          d[i] = b - (v + i == label ? 1.0f : 0.0f);
          break;
        case LossKind::kJsd:
          d[i] = (1.0f - options.beta) * b * (to_mixture(difference, options.beta).x - center);
          break;
      }
      d[i] *= weight;
    }
    if (gradients == nullptr) return;
    auto* out = reinterpret_cast<__nv_bfloat162*>(gradients + t * V + v);
    out[0] = __float22bfloat162_rn(make_float2(d[0], d[1]));
    out[1] = __float22bfloat162_rn(make_float2(d[2], d[3]));
  });
  const bool both = __syncthreads_or(agree > 0) != 0;
  if (threadIdx.x != 0) return;
  losses[t] = loss * weight;
  if (kls != nullptr) kls[t] = forward_kl;
  if (agrees != nullptr) agrees[t] = both ? 1.0f : 0.0f;
}

}  // namespace

void distill_loss(const LossOptions& options, const float* teacher, const float* student,
                  const int32_t* labels, float weight, int64_t T, int64_t V, float* loss, float* kl,
                  float* agree, bf16* d_student, cudaStream_t s) {
  const std::size_t row_bytes = static_cast<std::size_t>(V) * sizeof(float);
  const bool hold = row_bytes <= kMostShared;
  require(cudaFuncSetAttribute(loss_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(kMostShared)),
          "cudaFuncSetAttribute");
  loss_kernel<<<static_cast<unsigned>(T), kThreads, hold ? row_bytes : 0, s>>>(
      options, teacher, student, labels, weight, V, hold, loss, kl, agree, d_student);
  launched("distill_loss");
}

}  // namespace crumb::quant::train::cuda

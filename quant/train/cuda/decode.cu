// Decoding is bound by reading the cache, so a warp keeps many 16-byte loads in flight: eight lanes
// hold one key, four keys stand side by side, and four such steps are loaded before the first is
// used.
#include <cmath>

#include "models/errors.h"
#include "quant/train/cuda/decode.h"
#include "quant/train/cuda/launch.cuh"

namespace crumb::quant::train::cuda {
namespace {

constexpr int kUnroll = 4;
constexpr float kScale = 0.125f * 1.4426950409f;  // 1 / sqrt(64), for exp2

__device__ void widen(const uint4& packed, float (&x)[8]) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&packed);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 p = __bfloat1622float2(pairs[i]);
    x[2 * i] = p.x;
    x[2 * i + 1] = p.y;
  }
}

// Running softmax of one query head over the keys of a lane's slot.
struct Running {
  float top = -INFINITY, sum = 0, o[8] = {};
  __device__ void raise(float most) {
    const float shrink = most == -INFINITY ? 1.0f : exp2f(top - most);
    top = most;
    sum *= shrink;
#pragma unroll
    for (int d = 0; d < 8; ++d) o[d] *= shrink;
  }
  __device__ void merge_across(int step) {
    const float most = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
    raise(most);
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
#pragma unroll
    for (int d = 0; d < 8; ++d) o[d] += __shfl_xor_sync(0xffffffffu, o[d], step);
  }
};

template <int G>
__global__ __launch_bounds__(128) void decode_kernel(CacheSize z, const bf16* qkv, int64_t t,
                                                     bf16* keys, bf16* values, bf16* o) {
  const int lane = threadIdx.x % 32, part = lane % 8, slot = lane / 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  if (index >= z.B * z.kv_heads) return;
  const int64_t b = index / z.kv_heads, kv = index % z.kv_heads;
  const bf16* row = qkv + b * (z.heads + 2 * z.kv_heads) * 64 + 8 * part;
  float q[G][8];
#pragma unroll
  for (int g = 0; g < G; ++g) {
    widen(*reinterpret_cast<const uint4*>(row + (kv * G + g) * 64), q[g]);
#pragma unroll
    for (int d = 0; d < 8; ++d) q[g][d] *= kScale;
  }
  bf16* k_cache = keys + index * z.T * 64 + 8 * part;
  bf16* v_cache = values + index * z.T * 64 + 8 * part;
  const uint4 own_k = *reinterpret_cast<const uint4*>(row + (z.heads + kv) * 64);
  const uint4 own_v = *reinterpret_cast<const uint4*>(row + (z.heads + z.kv_heads + kv) * 64);
  if (slot == 0) {
    *reinterpret_cast<uint4*>(k_cache + t * 64) = own_k;
    *reinterpret_cast<uint4*>(v_cache + t * 64) = own_v;
  }
  Running run[G];
  for (int64_t first = 0; first <= t; first += 4 * kUnroll) {
    uint4 k[kUnroll], v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t j = first + 4 * u + slot;
      k[u] = v[u] = make_uint4(0, 0, 0, 0);
      if (j == t) {
        k[u] = own_k;
        v[u] = own_v;
      } else if (j < t) {
        k[u] = *reinterpret_cast<const uint4*>(k_cache + j * 64);
        v[u] = *reinterpret_cast<const uint4*>(v_cache + j * 64);
      }
    }
    float score[kUnroll][G];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      float x[8];
      widen(k[u], x);
      const bool seen = first + 4 * u + slot <= t;
#pragma unroll
      for (int g = 0; g < G; ++g) {
        float dot = 0;
#pragma unroll
        for (int d = 0; d < 8; ++d) dot += q[g][d] * x[d];
        for (int step = 1; step < 8; step *= 2) dot += __shfl_xor_sync(0xffffffffu, dot, step);
        score[u][g] = seen ? dot : -INFINITY;
      }
    }
#pragma unroll
    for (int g = 0; g < G; ++g) {
      float most = run[g].top;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) most = fmaxf(most, score[u][g]);
      run[g].raise(most);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      float x[8];
      widen(v[u], x);
#pragma unroll
      for (int g = 0; g < G; ++g) {
        // A slot that has seen no key yet has top -inf too.
        const float p = score[u][g] == -INFINITY ? 0.0f : exp2f(score[u][g] - run[g].top);
        run[g].sum += p;
#pragma unroll
        for (int d = 0; d < 8; ++d) run[g].o[d] += p * x[d];
      }
    }
  }
#pragma unroll
  for (int g = 0; g < G; ++g) {
    run[g].merge_across(8);
    run[g].merge_across(16);
    if (slot != 0) continue;
    const float inverse = 1.0f / run[g].sum;
    uint4 packed;
    auto* pairs = reinterpret_cast<__nv_bfloat162*>(&packed);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      pairs[i] = __float22bfloat162_rn(
          make_float2(run[g].o[2 * i] * inverse, run[g].o[2 * i + 1] * inverse));
    *reinterpret_cast<uint4*>(o + b * z.heads * 64 + (kv * G + g) * 64 + 8 * part) = packed;
  }
}

// splitmix64's finaliser.
__host__ __device__ inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

__global__ void start_kernel(Script script, uint64_t seed, int64_t first_row, int64_t B, int64_t T,
                             RowState* state, int32_t* tokens, int32_t* current) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= B) return;
  const uint64_t random = mix(mix(seed) + static_cast<uint64_t>(first_row + b));
  const auto prefix = static_cast<int32_t>(random % static_cast<uint64_t>(script.prefix_count));
  state[b] = {prefix, 0, -1};
  current[b] = tokens[b * T] = script.prefixes[script.prefix_begin[prefix]];
}

struct Choice {
  float value;
  int32_t token;
};
__device__ Choice better(const Choice& a, const Choice& b) {
  return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}
constexpr int kThreads = 512;

__device__ Choice block_best(Choice x, Choice* shared) {
  for (int step = 16; step > 0; step /= 2)
    x = better(x, {__shfl_xor_sync(0xffffffffu, x.value, step),
                   __shfl_xor_sync(0xffffffffu, x.token, step)});
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = shared[0];
  for (int w = 1; w < kThreads / 32; ++w) x = better(x, shared[w]);
  __syncthreads();
  return x;
}

// Gumbel's trick: the largest of z / temperature - log(-log(u)) is a sample of the softmax.
__device__ int32_t sample(const Sampling& how, const float* logits, int64_t V, uint64_t key) {
  __shared__ Choice shared[kThreads / 32];
  Choice top{-INFINITY, 0};
  for (int64_t v = 4 * threadIdx.x; v < V; v += 4 * kThreads) {
    const float4 z = *reinterpret_cast<const float4*>(logits + v);
    const auto at = static_cast<int32_t>(v);
    top =
        better(better(better(better(top, {z.x, at}), {z.y, at + 1}), {z.z, at + 2}), {z.w, at + 3});
  }
  top = block_best(top, shared);
  if (how.temperature <= 0) return top.token;
  const float least = top.value + how.temperature * logf(how.min_p);
  Choice best{-INFINITY, top.token};
  for (int64_t v = 4 * threadIdx.x; v < V; v += 4 * kThreads) {
    const float4 packed = *reinterpret_cast<const float4*>(logits + v);
    const float z[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (z[i] < least) continue;
      const uint64_t random = mix(key + static_cast<uint64_t>(v + i));
      const double u = (static_cast<double>(random >> 11) + 0.5) * 0x1p-53;
      const auto gumbel = static_cast<float>(-log(-log(u)));
      best = better(best, {z[i] / how.temperature + gumbel, static_cast<int32_t>(v + i)});
    }
  }
  return block_best(best, shared).token;
}

__global__ __launch_bounds__(kThreads) void next_kernel(Script script, Sampling how,
                                                        const float* logits, int64_t V,
                                                        int64_t first_row, int64_t T, int64_t t,
                                                        RowState* state, int32_t* tokens,
                                                        int32_t* current) {
  const int64_t b = blockIdx.x;
  RowState row = state[b];
  const int32_t begin = script.prefix_begin[row.prefix];
  const bool in_prefix = begin + t + 1 < script.prefix_begin[row.prefix + 1];
  int32_t token = 0;
  if (in_prefix) {
    token = script.prefixes[begin + t + 1];
  } else if (row.forced >= 0) {
    const int32_t at = script.header_begin[row.header] + row.forced;
    token = script.headers[at];
    ++row.forced;
    if (at + 1 == script.header_begin[row.header + 1]) {
      row.forced = -1;
      row.header = (row.header + 1) % script.header_count;
    }
  } else {
    const uint64_t key = mix(mix(mix(how.seed) + static_cast<uint64_t>(first_row + b)) +
                             static_cast<uint64_t>(t + 1));
    token = sample(how, logits + b * V, V, key);
    if (token == script.end && script.header_count > 0) row.forced = 0;
  }
  __syncthreads();  // all have read the state
  if (threadIdx.x != 0) return;
  state[b] = row;
  current[b] = tokens[b * T + t + 1] = token;
}

}  // namespace

void decode_attention(const CacheSize& z, const bf16* qkv, int64_t t, bf16* keys, bf16* values,
                      bf16* o, cudaStream_t s) {
  const int blocks = blocks_for(z.B * z.kv_heads, 4);
  const auto launch = [&]<int G>() {
    decode_kernel<G><<<blocks, 128, 0, s>>>(z, qkv, t, keys, values, o);
  };
  switch (z.heads / z.kv_heads) {
    case 1:
      launch.template operator()<1>();
      break;
    case 2:
      launch.template operator()<2>();
      break;
    case 3:
      launch.template operator()<3>();
      break;
    case 4:
      launch.template operator()<4>();
      break;
    case 6:
      launch.template operator()<6>();
      break;
    case 7:
      launch.template operator()<7>();
      break;
    default:
      throw Error(ExitCode::kUsage, "heads for each kv head (expected 1, 2, 3, 4, 6 or 7, found " +
                                        std::to_string(z.heads / z.kv_heads) + ")");
  }
  launched("decode_attention");
}

void start_rows(const Script& script, const Sampling& sampling, int64_t first_row, int64_t B,
                int64_t T, RowState* state, int32_t* tokens, int32_t* current, cudaStream_t s) {
  start_kernel<<<blocks_for(B, 128), 128, 0, s>>>(script, sampling.seed, first_row, B, T, state,
                                                  tokens, current);
  launched("start_rows");
}

void next_tokens(const Script& script, const Sampling& sampling, const float* logits, int64_t V,
                 int64_t first_row, int64_t B, int64_t T, int64_t t, RowState* state,
                 int32_t* tokens, int32_t* current, cudaStream_t s) {
  next_kernel<<<static_cast<unsigned>(B), kThreads, 0, s>>>(script, sampling, logits, V, first_row,
                                                            T, t, state, tokens, current);
  launched("next_tokens");
}

}  // namespace crumb::quant::train::cuda

// The generator of quant/train/noise.h, for kernels.
#pragma once
#include <cstdint>

namespace crumb::quant::train::cuda {

__device__ inline uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}
__device__ inline float noise_of(uint64_t seed, uint64_t index) {
  const uint64_t bits = mixed(seed + (index + 1) * 0x9e3779b97f4a7c15ull);
  return static_cast<float>(bits >> 40) * 0x1p-24f - 0.5f;
}

}  // namespace crumb::quant::train::cuda

// Counter-based random numbers: value i of a seed does not depend on how it is reached.
#pragma once
#include <array>
#include <cstdint>

namespace crumb {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
constexpr std::array<uint32_t, 4> philox(uint64_t seed, uint64_t index) {
  std::array<uint32_t, 4> x = {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0,
                               0};
  auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * x[0], b = uint64_t{0xCD9E8D57u} * x[2];
    x = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ key0, static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ x[3] ^ key1, static_cast<uint32_t>(a)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return x;
}

// [0, 1) with 53 bits.
constexpr double uniform(uint64_t seed, uint64_t index) {
  const auto x = philox(seed, index);
  return static_cast<double>(((uint64_t{x[0]} << 32) | x[1]) >> 11) * 0x1p-53;
}

}  // namespace crumb

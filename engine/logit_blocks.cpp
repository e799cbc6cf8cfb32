#include "engine/logit_blocks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

namespace crumb {
namespace {

// The exponent of infinities and NaNs is all ones. In integers, so that the compiler vectorises it.
constexpr uint32_t kExponent = 0x7f800000;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

}  // namespace

bool find_block_max(std::span<const float> logits, float* max) noexcept {
  constexpr std::size_t kLanes = 8;  // independent maxima, so that the compiler vectorises them too
  uint32_t bad = 0;
  for (std::size_t i = 0; i < logits.size(); i += kLogitBlock, ++max) {
    const auto block = logits.subspan(i, std::min<std::size_t>(kLogitBlock, logits.size() - i));
    std::array<float, kLanes> most;
    most.fill(kLowest);
    std::size_t j = 0;
    for (; j + kLanes <= block.size(); j += kLanes)
      for (std::size_t lane = 0; lane < kLanes; ++lane)
        most[lane] = block[j + lane] > most[lane] ? block[j + lane] : most[lane];
    for (; j < block.size(); ++j) most[0] = block[j] > most[0] ? block[j] : most[0];
    for (const float x : block)
      bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(x) & kExponent) == kExponent);
    *max = *std::max_element(most.begin(), most.end());
  }
  return bad == 0;
}

}  // namespace crumb

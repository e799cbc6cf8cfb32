// The largest logit of every block of 32: found by the threads that have just written the logits,
// so that a sampler need not read the whole vocabulary again.
#pragma once
#include <cstdint>
#include <span>

namespace crumb {

inline constexpr int64_t kLogitBlock = 32;

constexpr int64_t logit_blocks(int64_t vocab) { return (vocab + kLogitBlock - 1) / kLogitBlock; }

// max[i] = largest of logits[32 i, 32 i + 32), the last block may be shorter. NaNs are passed over
// (a block of nothing else gives -infinity). Returns false if a logit is infinite or NaN.
bool find_block_max(std::span<const float> logits, float* max) noexcept;

}  // namespace crumb

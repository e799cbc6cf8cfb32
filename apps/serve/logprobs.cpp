#include "apps/serve/logprobs.h"

#include <algorithm>

#include "bench/eval/scoring.h"
#include "engine/logit_blocks.h"

namespace crumb::serve {

TokenLogprob logprob_of(std::span<const float> logits, std::span<const float> block_max, int32_t id,
                        int top) {
  const double log_sum = eval::log_sum_exp(logits);
  const auto value = [&](int32_t token) {
    return static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(token)]) -
                              log_sum);
  };
  TokenLogprob result{id, value(id), {}};
  const auto wanted = static_cast<std::size_t>(std::max(top, 0));
  if (wanted == 0) return result;
  // A sorted list of the best so far; blocks that cannot better its last are skipped.
  std::vector<std::pair<int32_t, float>>& best = result.top;
  const auto behind = [](float logit, const std::pair<int32_t, float>& entry) {
    return logit > entry.second;
  };
  for (std::size_t block = 0; block < block_max.size(); ++block) {
    if (best.size() == wanted && block_max[block] <= best.back().second) continue;
    const std::size_t begin = block * kLogitBlock;
    const std::size_t end = std::min(begin + kLogitBlock, logits.size());
    for (std::size_t i = begin; i < end; ++i) {
      if (best.size() == wanted && logits[i] <= best.back().second) continue;
      best.insert(std::upper_bound(best.begin(), best.end(), logits[i], behind),
                  {static_cast<int32_t>(i), logits[i]});
      if (best.size() > wanted) best.pop_back();
    }
  }
  for (auto& [token, entry] : best) entry = value(token);
  return result;
}

}  // namespace crumb::serve

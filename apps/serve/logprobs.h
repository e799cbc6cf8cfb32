// Log-probabilities of a row of logits: of the model's own distribution, before any sampling
// option.
#pragma once
#include <cstdint>
#include <span>

#include "apps/serve/scheduler.h"

namespace crumb::serve {

// That of `id` and of the `top` likeliest (ties by id). The log of the sum is taken in double, as
// `crumb eval` does, and every value is the same function of its logit: a token that is the
// likeliest has the first entry's very bits. block_max: Batch::block_max of the row.
TokenLogprob logprob_of(std::span<const float> logits, std::span<const float> block_max, int32_t id,
                        int top);

}  // namespace crumb::serve

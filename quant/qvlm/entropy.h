// How much two linears depend on each other, by proxy: the entropy of what passes between them
// (Q-VLM, arXiv:2410.08119, section 3.2).
#pragma once
#include <cstdint>
#include <span>

namespace crumb::quant::qvlm {

// codes [T, K]: of each channel c with any code but 0
//   p_t = |code_tc| / sum_t |code_tc|,   H_c = -sum_t p_t log p_t / log T,   in [0, 1]
// and the mean over these channels; 0 if there are none or T is 1. Divided by log T (the paper's is
// not) so that thresholds mean the same for every number of tokens: a channel alike for all tokens
// has 1, one that a single token uses has 0.
double activation_entropy(std::span<const int8_t> codes, int64_t K);

}  // namespace crumb::quant::qvlm

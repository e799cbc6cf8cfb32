// The log divisors of LRQ (Low-Rank Quantization, arXiv:2407.11534): FlexRound's matrix S2, one
// value a weight, as a product of two thin ones and a vector of rows and one of columns,
//   S = L U + a 1^T + 1 b^T,
// so that fewer numbers are learned from a small calibration text.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "quant/train/adam.h"

namespace crumb::quant {

struct LowRankValues {
  std::vector<float> left;           // L [N, rank]
  std::vector<float> right;          // U [rank, K]
  std::vector<float> rows, columns;  // a [N], b [K]
};

// A quarter of the smaller side, as the paper has 1024 of 4096; at least 1.
int64_t low_rank(int64_t N, int64_t K);

// L, a, b are 0, so S is; U is random, normal of variance 1 / rank by `seed`.
LowRankValues low_rank_start(int64_t N, int64_t K, int64_t rank, uint64_t seed);

// S [N, K]. Like all here independent of the number of threads.
void low_rank_product(const LowRankValues& values, std::span<float> S, int threads);

// dL/d of all values from A = dL/dS [N, K].
LowRankValues low_rank_gradients(const LowRankValues& values, std::span<const float> A,
                                 int threads);

// Learned by Adam, all at one rate.
class LowRankDivisor {
 public:
  LowRankDivisor() = default;
  LowRankDivisor(int64_t N, int64_t K, uint64_t seed);
  void product(std::span<float> S, int threads) const { low_rank_product(values_, S, threads); }
  void step(std::span<const float> A, const train::AdamStep& step, int threads);

 private:
  LowRankValues values_, mean_, square_;
};

}  // namespace crumb::quant

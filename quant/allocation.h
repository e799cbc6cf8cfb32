// One choice for each unit under a budget of bytes: the exact solution of the multiple-choice
// knapsack problem. Where the losses come from is the caller's business (quant/sensitivity.h).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace crumb::quant {

struct Choice {
  int64_t bytes = 0;
  double loss = 0;
};
struct Unit {
  std::vector<Choice> choices;  // at least one, any order
};

struct Allocation {
  std::vector<int> choice;  // [units] index into choices
  int64_t bytes = 0;
  double loss = 0;     // the least that `bytes <= budget` allows
  double bound = 0;    // what a fractional solution of the budget could reach: loss >= bound
  int64_t states = 0;  // partial solutions that were looked at
};

// Least sum of losses with a sum of bytes of at most `budget`; of equal losses the fewest bytes.
//
// Lagrange: with L_u(c) = loss + lambda * bytes, sum_u min_c L_u - lambda * budget bounds every
// solution from below. lambda is the slope at which the greedy walk down the units' convex hulls
// meets the budget; the greedy solution is at most a step above the bound. A choice that costs more
// than this gap over its unit's minimum cannot be in a better solution; the few that remain are
// searched by dynamic programming over lists of undominated (bytes, loss) states, cut by the same
// bound. Worst case: one state for every reachable number of bytes.
//
// Throws Error(kUsage) if the smallest choices exceed the budget, std::invalid_argument for a unit
// without choices, negative bytes or losses that are not finite.
Allocation allocate(std::span<const Unit> units, int64_t budget);

}  // namespace crumb::quant

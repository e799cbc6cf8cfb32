// Rounding that compensates: LDLQ (QuIP, arXiv:2307.13304) = GPTQ (arXiv:2210.17323).
//
// Columns are rounded in the order of the factor H = M D M^T (quant/linalg.h):
//   w'_j = Q(t_j),   t_j = w_j + sum_{i<j} (w_i - w'_i) M_ij,
// which leaves tr(E H E^T) = sum_j D_j |t_j - w'_j|^2. Greedy passes (ldlqRG) then visit every
// column again and take the level that is best with all others as they are:
//   w'_j <- Q(w'_j + (E H)_j / H_jj),
// which never raises tr(E H E^T). H is the damped one.
//
// Weights are worked on in tiles of 64 rows in fp64; what earlier blocks of columns add to a block
// is one dgemm ("lazy update").
#pragma once
#include <cstdint>
#include <span>

#include "quant/linalg.h"
#include "quant/rounded.h"
#include "quant/scale_search.h"

namespace crumb::quant {

// kStatic: scales of the weights as they are, before any column is rounded. kUpdated: a group's
// scale is taken when its first column is reached, of the weights GPTQ has updated by then; the
// factor must be in ascending order. With one scale a row they are the same.
enum class GroupScales : uint8_t { kStatic, kUpdated };

struct LdlqOptions {
  int bits = 4;
  int64_t group = 0;  // 32, 64, 128, or 0 for one scale a row
  kernels::Grid grid = kernels::Grid::kSeq;
  ScaleRule rule = ScaleRule::kWeighted;  // weights are the factor's diagonal
  GroupScales scales = GroupScales::kStatic;
  int greedy_passes = 0;  // at most; a tile stops when a pass changes nothing
};

// w [N, K] row-major, finite, rotated or scaled like the x of H. Codes come out in the order of the
// columns of w. Deterministic; independent of the number of threads. Sizes are checked by assert.
Rounded ldlq(std::span<const float> w, int64_t N, int64_t K, const Factor& factor,
             const LdlqOptions& options, int threads = 0);

// The same on scales (and zeros) that are given; codes of `scales` are replaced.
Rounded ldlq_on(std::span<const float> w, const Factor& factor, Rounded scales, int greedy_passes,
                int threads = 0);

}  // namespace crumb::quant

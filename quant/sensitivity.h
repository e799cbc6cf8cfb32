// What each width costs each part of a matrix: the table that quant/allocation.h chooses from.
//
// The loss of a part is its share of  1/2 sum_r F_r (E H E^T)_rr  after LDLQ at that width, with
// E = W - W' in the space that is rounded. By the factor H = M D M^T (quant/linalg.h),
//   (E H E^T)_rr = sum_j D_j (E M)_rj^2,
// a sum over rows and columns of terms >= 0, so that it has shares by rows (bands) and by columns.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/ldlq.h"
#include "quant/linalg.h"

namespace crumb::quant {

inline constexpr std::array kWidths = {2, 3, 4, 8};
inline constexpr int64_t kCostColumns = 64;  // of a block of columns

// Losses of one matrix by width.
struct MatrixCosts {
  std::string name;
  int64_t N = 0, K = 0;
  std::array<std::vector<double>, kWidths.size()> strips;   // of each run of 32 rows
  std::array<std::vector<double>, kWidths.size()> columns;  // of each run of 64 columns
};

// w [N, K] in the space of `factor`; row_weights F [N] (quant/output_moments.h), or empty for all
// ones. `options.bits` is not used. Independent of the number of threads.
MatrixCosts measure_costs(const std::string& name, std::span<const float> w, int64_t N, int64_t K,
                          const Factor& factor, std::span<const float> row_weights,
                          const LdlqOptions& options, int threads = 0);

}  // namespace crumb::quant

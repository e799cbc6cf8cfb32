// From a table of losses and a budget to the widths of all matrices of the blocks. Any source of
// losses will do: quant/model_costs.h measures them, other methods may fill the same table.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "models/bands.h"
#include "quant/method.h"
#include "quant/sensitivity.h"

namespace crumb::quant {

// What gets a width of its own: a matrix, or each strip of 32 rows (neighbours of the same width
// become one band).
enum class Granularity : uint8_t { kTensor, kBands };
inline constexpr Named<Granularity> kGranularities[] = {{"tensor", Granularity::kTensor},
                                                        {"bands", Granularity::kBands}};

struct Widths {
  std::map<std::string, std::vector<models::Band>> bands;  // one or more, of every matrix
  int64_t bytes = 0;                                       // codes, scales and zeros
  double loss = 0;                                         // sum of the table's, nats
  double bound = 0;  // least that any real split of the budget could give (allocation.h)
};

// Exact (quant/allocation.h). `method` says group and grid. Throws Error(kUsage) if the budget is
// below the smallest widths.
Widths choose_widths(std::span<const MatrixCosts> costs, const Method& method,
                     Granularity granularity, int64_t budget);

// Bytes and losses with one width everywhere, by index of kWidths.
struct UniformWidths {
  std::array<int64_t, kWidths.size()> bytes{};
  std::array<double, kWidths.size()> loss{};
};
UniformWidths uniform_widths(std::span<const MatrixCosts> costs, const Method& method);

// BAQ's predicted gain (quant/baq.h) of real widths at the losses of INT3: by matrix, by strip of
// 32 rows, by 64 columns of a matrix. 1 is no gain.
struct Gains {
  double tensors = 1, strips = 1, columns = 1;
};
Gains predicted_gains(std::span<const MatrixCosts> costs);

}  // namespace crumb::quant

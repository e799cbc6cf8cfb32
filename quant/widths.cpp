#include "quant/widths.h"

#include <algorithm>
#include <numeric>

#include "kernels/layout.h"
#include "quant/allocation.h"
#include "quant/baq.h"

namespace crumb::quant {
namespace {

constexpr std::size_t kGainWidth = 1;  // INT3
static_assert(kWidths[kGainWidth] == 3);

// One strip of K columns.
int64_t strip_bytes(const Method& method, int64_t K, int bits) {
  const int64_t group = method.group == 0 ? K : method.group;
  const int64_t scale = method.grid == kernels::Grid::kAsym ? 3 : 2;  // with its zero
  return kernels::strip_code_bytes(K, bits) +
         kernels::group_count(K, group) * kernels::kStripRows * scale;
}

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// Strips [first, first + strips) of a matrix.
Unit unit_of(const MatrixCosts& matrix, const Method& method, int64_t first, int64_t strips) {
  Unit unit;
  for (std::size_t i = 0; i < kWidths.size(); ++i) {
    const auto begin = matrix.strips[i].begin() + first;
    unit.choices.push_back({strips * strip_bytes(method, matrix.K, kWidths[i]),
                            std::accumulate(begin, begin + strips, 0.0)});
  }
  return unit;
}

double gain_of(const std::vector<BaqUnit>& all) {
  std::vector<BaqUnit> units;  // a unit without loss has no place in a mean of logarithms
  for (const BaqUnit& unit : all)
    if (unit.c > 0) units.push_back(unit);
  return baq_gain(units);
}

}  // namespace

Widths choose_widths(std::span<const MatrixCosts> costs, const Method& method,
                     Granularity granularity, int64_t budget) {
  std::vector<Unit> units;
  const auto step = [&](const MatrixCosts& matrix) {
    return granularity == Granularity::kBands ? 1 : std::ssize(matrix.strips[0]);
  };
  for (const MatrixCosts& matrix : costs)
    for (int64_t s = 0; s < std::ssize(matrix.strips[0]); s += step(matrix))
      units.push_back(unit_of(matrix, method, s, step(matrix)));
  const Allocation allocation = allocate(units, budget);
  Widths widths;
  widths.bytes = allocation.bytes;
  widths.loss = allocation.loss;
  widths.bound = allocation.bound;
  std::size_t next = 0;
  for (const MatrixCosts& matrix : costs) {
    std::vector<models::Band> bands;
    for (int64_t s = 0; s < std::ssize(matrix.strips[0]); s += step(matrix))
      bands.push_back({step(matrix), kWidths[static_cast<std::size_t>(allocation.choice[next++])]});
    models::MatrixPlan joined;
    models::set_bands(bands, &joined);
    widths.bands[matrix.name] =
        joined.bands.empty()
            ? std::vector<models::Band>{{std::ssize(matrix.strips[0]), joined.bits}}
            : joined.bands;
  }
  return widths;
}

UniformWidths uniform_widths(std::span<const MatrixCosts> costs, const Method& method) {
  UniformWidths uniform;
  for (const MatrixCosts& matrix : costs)
    for (std::size_t i = 0; i < kWidths.size(); ++i) {
      uniform.bytes[i] += std::ssize(matrix.strips[i]) * strip_bytes(method, matrix.K, kWidths[i]);
      uniform.loss[i] += sum(matrix.strips[i]);
    }
  return uniform;
}

Gains predicted_gains(std::span<const MatrixCosts> costs) {
  std::vector<BaqUnit> tensors;
  std::vector<BaqUnit> strips;
  std::vector<BaqUnit> columns;
  for (const MatrixCosts& matrix : costs) {
    const auto N = static_cast<double>(matrix.N);
    const auto K = static_cast<double>(matrix.K);
    tensors.push_back({sum(matrix.strips[kGainWidth]), N * K});
    double left = N;
    for (const double loss : matrix.strips[kGainWidth]) {
      const double rows = std::min(left, static_cast<double>(kernels::kStripRows));
      strips.push_back({loss, rows * K});
      left -= rows;
    }
    left = K;
    for (const double loss : matrix.columns[kGainWidth]) {
      const double width = std::min(left, static_cast<double>(kCostColumns));
      columns.push_back({loss, N * width});
      left -= width;
    }
  }
  return {gain_of(tensors), gain_of(strips), gain_of(columns)};
}

}  // namespace crumb::quant

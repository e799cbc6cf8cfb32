#include "quant/banded.h"

#include <algorithm>
#include <cassert>
#include <map>

#include "kernels/layout.h"

namespace crumb::quant {
namespace {

// A band and where its rows are.
struct Run {
  std::size_t band = 0;
  int64_t first = 0;  // row
  int64_t rows = 0;
};

std::vector<Run> runs_of(std::span<const models::Band> bands, int64_t N) {
  std::vector<Run> runs;
  int64_t first = 0;
  for (std::size_t i = 0; i < bands.size(); ++i) {
    const int64_t rows = std::min(N - first, bands[i].strips * kernels::kStripRows);
    runs.push_back({i, first, rows});
    first += rows;
  }
  assert(first == N);
  return runs;
}

// Rows [first, first + rows) of `all`.
Rounded cut(const Rounded& all, int64_t first, int64_t rows) {
  Rounded part = make_rounded(rows, all.K, all.bits, all.group, all.grid);
  const int64_t groups = groups_of(all);
  std::copy_n(all.codes.begin() + first * all.K, rows * all.K, part.codes.begin());
  std::copy_n(all.scales.begin() + first * groups, rows * groups, part.scales.begin());
  if (!all.zeros.empty())
    std::copy_n(all.zeros.begin() + first * groups, rows * groups, part.zeros.begin());
  return part;
}

}  // namespace

std::vector<Rounded> round_bands(std::span<const float> w, int64_t N, int64_t K,
                                 std::span<const models::Band> bands, const RoundRows& round) {
  if (bands.size() == 1) return {round(w, N, bands.front().bits)};
  std::map<int, std::vector<Run>> by_bits;
  for (const Run& run : runs_of(bands, N)) by_bits[bands[run.band].bits].push_back(run);
  std::vector<Rounded> out(bands.size());
  for (const auto& [bits, runs] : by_bits) {
    // Together, so that short bands do not leave LDLQ's tiles half empty.
    std::vector<float> rows;
    for (const Run& run : runs)
      rows.insert(rows.end(), w.begin() + run.first * K, w.begin() + (run.first + run.rows) * K);
    const Rounded all = round(rows, std::ssize(rows) / K, bits);
    int64_t first = 0;
    for (const Run& run : runs) {
      out[run.band] = cut(all, first, run.rows);
      first += run.rows;
    }
  }
  return out;
}

std::vector<float> dequantize(std::span<const Rounded> bands) {
  std::vector<float> values;
  for (const Rounded& band : bands) {
    const std::vector<float> part = dequantize(band);
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}

}  // namespace crumb::quant

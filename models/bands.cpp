#include "models/bands.h"

#include <algorithm>
#include <cassert>

#include "kernels/pack.h"

namespace crumb::models {

int64_t code_bytes(std::span<const Band> bands, int64_t K) {
  int64_t bytes = 0;
  for (const Band& band : bands) bytes += band.strips * kernels::strip_code_bytes(K, band.bits);
  return bytes;
}

double mean_bits(std::span<const Band> bands) {
  int64_t strips = 0;
  int64_t bits = 0;
  for (const Band& band : bands) {
    strips += band.strips;
    bits += band.strips * band.bits;
  }
  return strips > 0 ? static_cast<double>(bits) / static_cast<double>(strips) : 0;
}

std::string widths_text(std::span<const Band> bands) {
  if (bands.empty()) return "F32";
  const auto [low, high] = std::minmax_element(
      bands.begin(), bands.end(), [](const Band& a, const Band& b) { return a.bits < b.bits; });
  std::string text = "INT" + std::to_string(low->bits);
  if (low->bits != high->bits) text += "-" + std::to_string(high->bits);
  return text;
}

std::vector<kernels::PackedMatrix> cut_bands(const kernels::PackedMatrix& whole,
                                             std::span<const Band> bands) {
  const int64_t scales = kernels::group_count(whole.cols, whole.group) * kernels::kStripRows;
  std::vector<kernels::PackedMatrix> out;
  kernels::PackedMatrix band = whole;
  int64_t rows_left = whole.rows;
  for (const Band& run : bands) {
    band.bits = run.bits;
    band.rows = std::min(rows_left, run.strips * kernels::kStripRows);
    out.push_back(band);
    rows_left -= band.rows;
    band.codes += run.strips * kernels::strip_code_bytes(whole.cols, run.bits);
    band.scales += run.strips * scales;
    if (band.zeros != nullptr) band.zeros += run.strips * scales;
  }
  assert(rows_left == 0);
  return out;
}

std::vector<Band> bands_of(std::span<const kernels::PackedMatrix> matrices) {
  std::vector<Band> bands;
  for (const kernels::PackedMatrix& matrix : matrices)
    bands.push_back({kernels::strip_count(matrix.rows), matrix.bits});
  return bands;
}

void dequantize_row(std::span<const kernels::PackedMatrix> bands, int64_t n, std::span<float> out) {
  for (const kernels::PackedMatrix& band : bands) {
    if (n < band.rows) {
      kernels::dequantize_row(band, n, out);
      return;
    }
    n -= band.rows;
  }
  assert(false && "row past the last band");
}

}  // namespace crumb::models

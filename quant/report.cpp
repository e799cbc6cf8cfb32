#include "quant/report.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "quant/parallel.h"
#include "quant/rtn.h"

namespace crumb::quant {

Distortion measure(std::span<const float> w, const models::PackedData& packed, int threads) {
  const int64_t N = packed.rows;
  const int64_t K = packed.cols;
  assert(std::ssize(w) == N * K);
  const bool rotated = packed.rotation.hadamard != 0;
  const auto signs = rotated ? models::rotation_signs(packed.rotation, K) : std::vector<float>();
  const std::vector<kernels::PackedMatrix> bands = band_views(packed);
  std::vector<double> error(static_cast<std::size_t>(N));
  std::vector<double> energy(static_cast<std::size_t>(N));
  parallel_rows(N, threads, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(K));
    std::vector<float> restored(static_cast<std::size_t>(K));
    for (int64_t n = begin; n < end; ++n) {
      std::copy_n(w.begin() + n * K, K, row.begin());
      if (rotated) rotate_row(row, packed.rotation, signs);
      models::dequantize_row(bands, n, restored);
      double row_error = 0;
      double row_energy = 0;
      for (std::size_t k = 0; k < row.size(); ++k) {
        const double value = row[k];
        const double difference = value - restored[k];
        row_error += difference * difference;
        row_energy += value * value;
      }
      error[static_cast<std::size_t>(n)] = row_error;
      energy[static_cast<std::size_t>(n)] = row_energy;
    }
  });
  double total_error = 0;
  double total_energy = 0;
  for (std::size_t n = 0; n < error.size(); ++n) {
    total_error += error[n];
    total_energy += energy[n];
  }
  Distortion result;
  result.mse = total_error / static_cast<double>(N * K);
  result.relative_error = total_energy > 0 ? std::sqrt(total_error / total_energy) : 0;
  return result;
}

}  // namespace crumb::quant

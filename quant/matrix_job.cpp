#include "quant/matrix_job.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

#include "quant/banded.h"
#include "quant/blas.h"
#include "quant/parallel.h"
#include "quant/rotation.h"
#include "quant/rounded.h"
#include "quant/scale_refit.h"

namespace crumb::quant {
namespace {

Rounded round_on_grid(std::span<const float> w, int64_t N, int64_t K, const Method& method,
                      int bits, const PreparedInput* input, int threads) {
  if (method.rounding == Rounding::kLdlq) {
    Rounded start =
        ldlq(w, N, K, *input->factor,
             {bits, method.group, method.grid, method.rule, method.scales, method.greedy_passes},
             threads);
    return improve_scales(w, input->H, *input->factor, std::move(start),
                          {method.trials, method.refits, method.greedy_passes}, threads);
  }
  const std::span<const float> h =
      input != nullptr ? std::span<const float>(input->diagonal) : std::span<const float>();
  return round_nearest(w, N, K, h, {bits, method.group, method.grid, method.rule}, threads);
}

// Without statistics rows are independent: they are rotated a tile at a time, so that no second
// copy of a large matrix is held.
Rounded round_in_tiles(std::span<const float> w, int64_t N, int64_t K, const Method& method,
                       int bits, const std::string& name, int threads) {
  constexpr int64_t kTileRows = 2048;
  Rounded all = make_rounded(N, K, bits, method.group, method.grid);
  for (int64_t n = 0; n < N; n += kTileRows) {
    const int64_t rows = std::min(kTileRows, N - n);
    const auto from =
        w.subspan(static_cast<std::size_t>(n * K), static_cast<std::size_t>(rows * K));
    std::vector<float> tile(from.begin(), from.end());
    if (method.rotation.hadamard != 0) {
      rotate_rows(tile, K, method.rotation, threads);
      // A block's sum of finite weights may overflow.
      require_finite(tile, K, name + " (rotated, from row " + std::to_string(n) + ")");
    }
    const Rounded part = round_on_grid(tile, rows, K, method, bits, nullptr, threads);
    std::copy(part.codes.begin(), part.codes.end(), all.codes.begin() + n * K);
    const int64_t groups = groups_of(all);
    std::copy(part.scales.begin(), part.scales.end(), all.scales.begin() + n * groups);
    std::copy(part.zeros.begin(), part.zeros.end(),
              all.zeros.begin() + (all.zeros.empty() ? 0 : n * groups));
  }
  return all;
}

// tr(E H E^T) with the products in float: for reports, within about 1e-4.
double quadratic(std::span<const float> E, int64_t N, std::span<const double> H, int64_t K,
                 int threads) {
  constexpr int64_t kRows = 64;
  const std::vector<float> h(H.begin(), H.end());
  const auto as_int = [](int64_t n) { return static_cast<blasint>(n); };
  std::vector<double> sums(static_cast<std::size_t>((N + kRows - 1) / kRows));
  parallel_rows(std::ssize(sums), threads, [&](int64_t begin, int64_t end) {
    std::vector<float> product(static_cast<std::size_t>(kRows * K));
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t rows = std::min(kRows, N - tile * kRows);
      const float* e = E.data() + tile * kRows * K;
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_int(rows), as_int(K), as_int(K),
                  1.0f, e, as_int(K), h.data(), as_int(K), 0.0f, product.data(), as_int(K));
      double total = 0;
      for (int64_t n = 0; n < rows; ++n)
        total += static_cast<double>(
            std::inner_product(e + n * K, e + (n + 1) * K, product.data() + n * K, 0.0f));
      sums[static_cast<std::size_t>(tile)] = total;
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

double relative_output_error(std::span<const float> w, std::span<const float> rounded, int64_t N,
                             const PreparedInput& input, int64_t K, int threads) {
  std::vector<float> error(w.begin(), w.end());
  const double energy = quadratic(error, N, input.H, K, threads);
  for (std::size_t i = 0; i < error.size(); ++i) error[i] -= rounded[i];
  return energy > 0 ? quadratic(error, N, input.H, K, threads) / energy : 0;
}

}  // namespace

bool prepared_alike(const Method& a, const Method& b) {
  return needs_statistics(a) == needs_statistics(b) && a.rounding == b.rounding &&
         a.rotation == b.rotation && a.order == b.order && a.damping == b.damping;
}

PreparedInput prepare_input(std::span<const double> H, int64_t K, const Method& method,
                            const std::string& name, int threads) {
  PreparedInput input;
  input.H.assign(H.begin(), H.end());
  if (method.rotation.hadamard != 0) rotate_hessian(input.H, K, method.rotation, threads);
  input.diagonal.resize(static_cast<std::size_t>(K));
  for (int64_t k = 0; k < K; ++k)
    input.diagonal[static_cast<std::size_t>(k)] =
        static_cast<float>(input.H[static_cast<std::size_t>(k * K + k)]);
  if (method.rounding == Rounding::kLdlq)
    input.factor = factor(input.H, K, method.order, name, threads, method.damping);
  return input;
}

MatrixResult round_matrix(std::span<const float> w, int64_t N, int64_t K, const Method& method,
                          const PreparedInput* input, const std::string& name, int threads) {
  validate(method, N, K, name);
  require_finite(w, K, name);
  assert(input != nullptr || !needs_statistics(method));
  std::vector<float> rotated;
  std::span<const float> stored = w;
  if (input != nullptr && method.rotation.hadamard != 0) {
    rotated.assign(w.begin(), w.end());
    rotate_rows(rotated, K, method.rotation, threads);
    // A block's sum of finite weights may overflow.
    require_finite(rotated, K, name + " (rotated)");
    stored = rotated;
  }
  std::vector<models::Band> bands = method.bands;
  if (bands.empty()) bands = {{kernels::strip_count(N), method.bits}};
  const std::vector<Rounded> rounded =
      round_bands(stored, N, K, bands, [&](std::span<const float> rows, int64_t n, int bits) {
        return input == nullptr ? round_in_tiles(rows, n, K, method, bits, name, threads)
                                : round_on_grid(rows, n, K, method, bits, input, threads);
      });
  MatrixResult result;
  result.packed = pack_bands(rounded, method.rotation);
  result.report.name = name;
  result.report.distortion = measure(w, result.packed, threads);
  if (input == nullptr) return result;
  result.report.output_error =
      relative_output_error(stored, dequantize(rounded), N, *input, K, threads);
  if (input->factor) {
    result.report.damping = input->factor->damping;
    result.report.damping_raised = input->factor->damping > method.damping;
    result.report.dead = input->factor->dead;
  }
  return result;
}

std::vector<float> restore(const models::PackedData& packed, int threads) {
  const auto K = static_cast<std::size_t>(packed.cols);
  std::vector<float> w(static_cast<std::size_t>(packed.rows) * K);
  const std::vector<kernels::PackedMatrix> bands = band_views(packed);
  const bool rotated = packed.rotation.hadamard != 0;
  const auto signs =
      rotated ? models::rotation_signs(packed.rotation, packed.cols) : std::vector<float>();
  const std::vector<float> ones(rotated ? K : 0, 1.0f);
  parallel_rows(packed.rows, threads, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const auto row = std::span(w).subspan(static_cast<std::size_t>(n) * K, K);
      models::dequantize_row(bands, n, row);
      if (!rotated) continue;
      rotate_row(row, packed.rotation, ones);  // (H S)^-1 = S H
      for (std::size_t k = 0; k < K; ++k) row[k] *= signs[k];
    }
  });
  return w;
}

}  // namespace crumb::quant

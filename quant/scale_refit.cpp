#include "quant/scale_refit.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr int64_t kRows = 64;

// Rows of a matrix at work, [rows, K].
struct Tile {
  int64_t first, rows, K;
  std::vector<double> levels;  // code - zero
  std::vector<double> gains;   // E H

  std::size_t at(int64_t r, int64_t k) const { return static_cast<std::size_t>(r * K + k); }
};

Tile make_tile(std::span<const float> w, std::span<const double> H, const Rounded& rounded,
               int64_t first) {
  Tile tile{first, std::min(kRows, rounded.N - first), rounded.K, {}, {}};
  tile.levels.resize(static_cast<std::size_t>(tile.rows * tile.K));
  tile.gains.resize(tile.levels.size());
  std::vector<double> error(tile.levels.size());
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t g = 0; g < groups_of(rounded); ++g) {
      const GroupFit fit = fit_of(rounded, first + r, g);
      for (int64_t k = g * rounded.group; k < std::min(tile.K, (g + 1) * rounded.group); ++k) {
        const auto from = static_cast<std::size_t>((first + r) * tile.K + k);
        tile.levels[tile.at(r, k)] = rounded.codes[from] - 0.5 * fit.zero2;
        error[tile.at(r, k)] = static_cast<double>(w[from]) -
                               static_cast<double>(fit.scale) * tile.levels[tile.at(r, k)];
      }
    }
  gemm({tile.rows, tile.K, tile.K}, 1.0, error.data(), tile.K, H.data(), tile.K, 0.0,
       tile.gains.data(), tile.K);
  return tile;
}

// Group g of all rows of the tile.
void refit_group(std::span<const double> H, int64_t g, Tile* tile, Rounded* rounded) {
  const int64_t K = tile->K, begin = g * rounded->group, size = std::min(rounded->group, K - begin);
  std::vector<double> curve(static_cast<std::size_t>(tile->rows * size)), moved(curve.size());
  const double* levels = tile->levels.data() + begin;
  gemm({tile->rows, size, size}, 1.0, levels, K, H.data() + begin * K + begin, K, 0.0, curve.data(),
       size);
  for (int64_t r = 0; r < tile->rows; ++r) {
    GroupFit fit = fit_of(*rounded, tile->first + r, g);
    double slope = 0, bend = 0;
    for (int64_t k = 0; k < size; ++k) {
      slope += levels[r * K + k] * tile->gains[tile->at(r, begin + k)];
      bend += levels[r * K + k] * curve[static_cast<std::size_t>(r * size + k)];
    }
    const double wanted = static_cast<double>(fit.scale) + slope / bend;
    if (!(fit.scale > 0) || !(bend > 0) || !(wanted > 0)) continue;
    const float scale = nearest_scale(wanted);
    const double step = static_cast<double>(scale) - static_cast<double>(fit.scale);
    if (!(step * (step * bend - 2 * slope) < 0)) continue;  // rounded to binary16 it may gain none
    fit.scale = scale;
    set_fit(rounded, tile->first + r, g, fit);
    for (int64_t k = 0; k < size; ++k)
      moved[static_cast<std::size_t>(r * size + k)] = step * levels[r * K + k];
  }
  if (begin + size < K)
    gemm({tile->rows, K, size}, -1.0, moved.data(), size, H.data() + begin * K, K, 1.0,
         tile->gains.data(), K);
}

// The rows found so far and what they lose.
struct Best {
  Rounded rounded;
  std::vector<double> losses;
};

void take_better(std::span<const float> w, std::span<const double> H, const Rounded& other,
                 Best* best, int threads) {
  const int64_t K = other.K, groups = groups_of(other);
  const auto losses = row_losses(w, dequantize(other), other.N, H, K, threads);
  const auto copy = [](const auto& from, auto* to, int64_t n, int64_t size) {
    if (!from.empty()) std::copy_n(from.begin() + n * size, size, to->begin() + n * size);
  };
  for (int64_t n = 0; n < other.N; ++n) {
    const auto at = static_cast<std::size_t>(n);
    if (!(losses[at] < best->losses[at])) continue;
    best->losses[at] = losses[at];
    copy(other.codes, &best->rounded.codes, n, K);
    copy(other.scales, &best->rounded.scales, n, groups);
    copy(other.zeros, &best->rounded.zeros, n, groups);
  }
}

Rounded with_scales_times(Rounded rounded, double by) {
  for (int64_t n = 0; n < rounded.N; ++n)
    for (int64_t g = 0; g < groups_of(rounded); ++g) {
      GroupFit fit = fit_of(rounded, n, g);
      if (fit.scale > 0) fit.scale = nearest_scale(static_cast<double>(fit.scale) * by);
      set_fit(&rounded, n, g, fit);
    }
  return rounded;
}

}  // namespace

void refit_scales(std::span<const float> w, std::span<const double> H, Rounded* rounded,
                  int threads) {
  use_one_blas_thread();
  parallel_rows((rounded->N + kRows - 1) / kRows, threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      Tile tile = make_tile(w, H, *rounded, t * kRows);
      for (int64_t g = 0; g < groups_of(*rounded); ++g) refit_group(H, g, &tile, rounded);
    }
  });
}

Rounded improve_scales(std::span<const float> w, std::span<const double> H, const Factor& factor,
                       Rounded start, const RefitOptions& options, int threads) {
  if (options.trials == 0 && options.refits == 0) return start;
  auto losses = row_losses(w, dequantize(start), start.N, H, start.K, threads);
  Best best{start, std::move(losses)};
  for (int trial = -options.trials; trial <= options.trials; ++trial) {
    if (trial == 0) continue;
    Rounded tried = with_scales_times(start, std::exp(kTrialStep * trial));
    take_better(w, H, ldlq_on(w, factor, std::move(tried), options.greedy_passes, threads), &best,
                threads);
  }
  for (int i = 0; i < options.refits; ++i) {
    refit_scales(w, H, &best.rounded, threads);
    best.losses = row_losses(w, dequantize(best.rounded), start.N, H, start.K, threads);
    take_better(w, H, ldlq_on(w, factor, best.rounded, options.greedy_passes, threads), &best,
                threads);
  }
  if (options.refits > 0) refit_scales(w, H, &best.rounded, threads);
  return std::move(best.rounded);
}

}  // namespace crumb::quant

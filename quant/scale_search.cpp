#include "quant/scale_search.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "quant/parallel.h"

namespace crumb::quant {
namespace {

using kernels::Grid;

constexpr int kCoarseRatios = 30;
constexpr double kHighestRatio = 1.05;
constexpr double kLowestRatio = 0.15;
constexpr int kFineRatios = 16;
constexpr int kZeroMoves = 2;  // zero points tried on both sides of the best
constexpr std::size_t kLanes = 16;

// sum h (w - w')^2 in a fixed order of lanes; see grid.cpp's squared_error for the arithmetic.
double weighted_error(std::span<const float> w, std::span<const float> h, const GroupFit& fit,
                      int bits) {
  const float inverse = 1.0f / fit.scale;
  const float zero = 0.5f * static_cast<float>(fit.zero2);
  const float shift = zero + 0.5f;
  const auto top = static_cast<float>((1 << bits) - 1);
  std::array<float, kLanes> sum{};
  const auto add = [&](float x, float weight, float& lane) {
    float code = x * inverse + shift;
    code = code > 0.0f ? code : 0.0f;
    code = code < top ? code : top;
    const float difference =
        (static_cast<float>(static_cast<int32_t>(code)) - zero) * fit.scale - x;
    lane += weight * difference * difference;
  };
  const std::size_t whole = w.size() / kLanes * kLanes;
  const float* x = w.data();
  const float* weight = h.data();
  for (std::size_t i = 0; i < whole; i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) add(x[i + lane], weight[i + lane], sum[lane]);
  for (std::size_t i = whole; i < w.size(); ++i) add(x[i], weight[i], sum[i - whole]);
  double total = 0;
  for (const float lane : sum) total += static_cast<double>(lane);
  return total;
}

struct Best {
  GroupFit fit;
  double ratio = 1;
  double error = 0;
};

}  // namespace

GroupFit fit_group_weighted(std::span<const float> w, std::span<const float> h, int bits,
                            Grid grid) {
  assert(w.size() == h.size());
  const GroupFit widest = fit_group(w, bits, grid, ScaleSearch::kAbsMax);
  if (!(widest.scale > 0)) return widest;
  if (std::all_of(h.begin(), h.end(), [](float x) { return x == 0; }))
    return fit_group(w, bits, grid, ScaleSearch::kMse);
  Best best = {widest, 1, weighted_error(w, h, widest, bits)};
  const auto consider = [&](double ratio, int32_t zero2) {
    const GroupFit fit = {nearest_scale(static_cast<double>(widest.scale) * ratio), zero2};
    const double error = weighted_error(w, h, fit, bits);
    if (error < best.error) best = {fit, ratio, error};
  };
  // A stored zero point is searched around the one that kAbsMax puts the smallest weight on.
  const int moves = grid == Grid::kAsym ? kZeroMoves : 0;
  const int32_t highest_zero2 = 2 * ((1 << bits) - 1);
  const auto consider_zeros = [&](double ratio, int32_t zero2) {
    for (int32_t move = -moves; move <= moves; ++move) {
      const int32_t moved = zero2 + 2 * move;
      if (moved >= 0 && moved <= highest_zero2) consider(ratio, moved);
    }
  };
  const double factor = std::pow(kLowestRatio / kHighestRatio, 1.0 / (kCoarseRatios - 1));
  double ratio = kHighestRatio;
  for (int i = 0; i < kCoarseRatios; ++i, ratio *= factor) consider_zeros(ratio, widest.zero2);
  const Best coarse = best;
  for (int i = 0; i < kFineRatios; ++i)
    consider_zeros(coarse.ratio * std::pow(factor, (2.0 * i + 1 - kFineRatios) / kFineRatios),
                   coarse.fit.zero2);
  return best.fit;
}

GroupFit fit_group(std::span<const float> w, std::span<const float> h, int bits, Grid grid,
                   ScaleRule rule) {
  switch (rule) {
    case ScaleRule::kAbsMax:
      return fit_group(w, bits, grid, ScaleSearch::kAbsMax);
    case ScaleRule::kMse:
      return fit_group(w, bits, grid, ScaleSearch::kMse);
    case ScaleRule::kWeighted:
      break;
  }
  return fit_group_weighted(w, h, bits, grid);
}

void fit_row(std::span<const float> row, std::span<const float> h, ScaleRule rule, int64_t n,
             Rounded* out) {
  const bool weighted = rule == ScaleRule::kWeighted;
  assert(std::ssize(row) == out->K && (!weighted || h.size() == row.size()));
  for (int64_t g = 0; g < groups_of(*out); ++g) {
    const auto first = static_cast<std::size_t>(g * out->group);
    const auto size = std::min(row.size() - first, static_cast<std::size_t>(out->group));
    const auto weights = weighted ? h.subspan(first, size) : std::span<const float>();
    set_fit(out, n, g, fit_group(row.subspan(first, size), weights, out->bits, out->grid, rule));
  }
}

void round_row(std::span<const float> row, int64_t n, Rounded* out) {
  assert(std::ssize(row) == out->K);
  const auto codes =
      std::span(out->codes).subspan(static_cast<std::size_t>(n * out->K), row.size());
  for (int64_t g = 0; g < groups_of(*out); ++g) {
    const auto first = static_cast<std::size_t>(g * out->group);
    const auto size = std::min(row.size() - first, static_cast<std::size_t>(out->group));
    round_group(row.subspan(first, size), fit_of(*out, n, g), out->bits,
                codes.subspan(first, size));
  }
}

Rounded fit_scales(std::span<const float> w, int64_t N, int64_t K, std::span<const float> h,
                   const NearestOptions& options, int threads) {
  assert(std::ssize(w) == N * K);
  Rounded out = make_rounded(N, K, options.bits, options.group, options.grid);
  parallel_rows(N, threads, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      fit_row(w.subspan(static_cast<std::size_t>(n * K), static_cast<std::size_t>(K)), h,
              options.rule, n, &out);
  });
  return out;
}

Rounded round_nearest(std::span<const float> w, int64_t N, int64_t K, std::span<const float> h,
                      const NearestOptions& options, int threads) {
  Rounded out = fit_scales(w, N, K, h, options, threads);
  parallel_rows(N, threads, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      round_row(w.subspan(static_cast<std::size_t>(n * K), static_cast<std::size_t>(K)), n, &out);
  });
  return out;
}

}  // namespace crumb::quant

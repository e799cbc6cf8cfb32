#include "quant/grid.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "kernels/float16.h"

namespace crumb::quant {
namespace {

using kernels::Grid;

constexpr float kSmallestScale = 0x1p-24f;
constexpr float kLargestScale = 65504.0f;
constexpr double kHighestRatio = 1.15;
constexpr double kCoarseFactor = 0.95;
constexpr int kCoarseRatios = 40;  // down to 1.15 * 0.95^39 = 0.156
constexpr int kFineRatios = 24;    // between the coarse neighbours of the best one
constexpr std::size_t kLanes = 16;

// The smallest binary16 value >= scale, so that rounding the scale never pushes a weight off the
// grid.
float covering_scale(double scale) {
  const float nearest = nearest_scale(scale);
  if (static_cast<double>(nearest) >= scale || nearest >= kLargestScale) return nearest;
  return kernels::f16_to_f32(static_cast<uint16_t>(kernels::f32_to_f16(nearest) + 1));
}

struct Extent {
  float low = 0;   // <= 0
  float high = 0;  // >= 0
};

Extent extent(std::span<const float> w) {
  Extent e;
  for (const float x : w) {
    e.low = x < e.low ? x : e.low;
    e.high = x > e.high ? x : e.high;
  }
  return e;
}

double covering_step(const Extent& e, int bits, Grid grid) {
  const double low = e.low;
  const double high = e.high;
  const double top = (1 << bits) - 1;
  const double half = 1 << (bits - 1);
  switch (grid) {
    case Grid::kSeq:
      return 2 * std::max(high, -low) / top;
    case Grid::kLsq:
      return std::max(high / (half - 1), -low / half);
    case Grid::kAsym:
      return (high - low) / top;
  }
  return 0;
}

// For asym: the integer zero point that puts `low * ratio` on the lowest level.
int32_t zero2_for(const Extent& e, double ratio, float scale, int bits, Grid grid) {
  if (grid != Grid::kAsym) return kernels::grid_zero2(grid, bits);
  const double zero = std::floor(-static_cast<double>(e.low) * ratio / scale + 0.5);
  return 2 * static_cast<int32_t>(std::clamp(zero, 0.0, static_cast<double>((1 << bits) - 1)));
}

// Sum of (w - w')^2. Lanes make the order fixed and the inner loop vectorisable; the reciprocal and
// the truncating cast replace a division and a floor, which at a tie only picks the other of two
// levels that are equally far away.
float squared_error(std::span<const float> w, const GroupFit& fit, int bits) {
  const float inverse = 1.0f / fit.scale;
  const float zero = 0.5f * static_cast<float>(fit.zero2);
  const float shift = zero + 0.5f;
  const auto top = static_cast<float>((1 << bits) - 1);
  std::array<float, kLanes> sum{};
  const auto add = [&](float x, float& lane) {
    float code = x * inverse + shift;
    code = code > 0.0f ? code : 0.0f;
    code = code < top ? code : top;
    const float difference =
        (static_cast<float>(static_cast<int32_t>(code)) - zero) * fit.scale - x;
    lane += difference * difference;
  };
  const std::size_t whole = w.size() / kLanes * kLanes;
  const float* x = w.data();
  for (std::size_t i = 0; i < whole; i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) add(x[i + lane], sum[lane]);
  for (std::size_t i = whole; i < w.size(); ++i) add(x[i], sum[i - whole]);
  for (std::size_t step = kLanes / 2; step > 0; step /= 2)
    for (std::size_t lane = 0; lane < step; ++lane) sum[lane] += sum[lane + step];
  return sum[0];
}

struct Candidate {
  GroupFit fit;
  double ratio = 1;
  float error = 0;
};

Candidate search_ratios(std::span<const float> w, const Extent& e, double step, int bits, Grid grid,
                        const Candidate& start) {
  Candidate best = start;
  const auto consider = [&](double ratio, int32_t zero2) {
    Candidate c;
    c.ratio = ratio;
    c.fit.scale = nearest_scale(step * ratio);
    c.fit.zero2 = zero2;
    c.error = squared_error(w, c.fit, bits);
    if (c.error < best.error) best = c;
  };
  double ratio = kHighestRatio;
  for (int i = 0; i < kCoarseRatios; ++i, ratio *= kCoarseFactor)
    consider(ratio, zero2_for(e, ratio, nearest_scale(step * ratio), bits, grid));
  // A stored zero point is searched too: its neighbours share the fine ratios with it.
  const Candidate coarse = best;
  const bool asym = grid == Grid::kAsym;
  const int fine = asym ? kFineRatios / 3 : kFineRatios;
  const int32_t top = (1 << bits) - 1;
  for (int32_t move = asym ? -1 : 0; move <= (asym ? 1 : 0); ++move) {
    const int32_t zero2 = coarse.fit.zero2 + 2 * move;
    if (asym && (zero2 < 0 || zero2 > 2 * top)) continue;
    // The steps stay clear of the centre and of the coarse neighbours, which have been tried.
    for (int i = 0; i < fine; ++i)
      consider(coarse.ratio * (1 + (2.0 * i + 1 - fine) / fine * (1 - kCoarseFactor)), zero2);
  }
  return best;
}

}  // namespace

float nearest_scale(double scale) {
  const auto clamped = static_cast<float>(
      std::clamp(scale, static_cast<double>(kSmallestScale), static_cast<double>(kLargestScale)));
  return kernels::f16_to_f32(kernels::f32_to_f16(clamped));
}

GroupFit fit_group(std::span<const float> w, int bits, Grid grid, ScaleSearch search) {
  assert(kernels::valid_bits(bits));
  const Extent e = extent(w);
  if (e.low == 0 && e.high == 0)
    return {0, grid == Grid::kAsym ? 0 : kernels::grid_zero2(grid, bits)};
  const double step = covering_step(e, bits, grid);
  GroupFit fit;
  fit.scale = covering_scale(step);
  fit.zero2 = zero2_for(e, 1.0, fit.scale, bits, grid);
  if (search == ScaleSearch::kAbsMax) return fit;
  return search_ratios(w, e, step, bits, grid, {fit, 1.0, squared_error(w, fit, bits)}).fit;
}

void round_group(std::span<const float> w, const GroupFit& fit, int bits,
                 std::span<uint8_t> codes) {
  assert(codes.size() == w.size());
  if (!(fit.scale > 0)) {
    std::fill(codes.begin(), codes.end(), static_cast<uint8_t>((fit.zero2 + 1) / 2));
    return;
  }
  // In double the quotient of a 24-bit by an 11-bit number cannot be rounded across a tie, so the
  // codes are the nearest ones exactly; truncation is floor because the sum is clamped to be
  // positive first.
  const double scale = fit.scale;
  const double shift = 0.5 * fit.zero2 + 0.5;
  const double top = (1 << bits) - 1;
  const float* x = w.data();
  uint8_t* out = codes.data();
  for (std::size_t i = 0; i < w.size(); ++i) {
    double code = static_cast<double>(x[i]) / scale + shift;
    code = code > 0 ? code : 0;
    code = code < top ? code : top;
    out[i] = static_cast<uint8_t>(static_cast<int32_t>(code));
  }
}

}  // namespace crumb::quant

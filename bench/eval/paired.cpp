#include "bench/eval/paired.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>
#include <vector>

#include "bench/eval/scoring.h"
#include "engine/rng.h"

namespace crumb::eval {
namespace {

struct Sums {
  double value = 0, weight = 0, reference_value = 0, reference_weight = 0;

  void add(const Pair& pair) {
    value += pair.value;
    weight += pair.weight;
    reference_value += pair.reference_value;
    reference_weight += pair.reference_weight;
  }
  double ratio() const { return value / weight; }
  double reference() const { return reference_value / reference_weight; }
  double delta() const { return ratio() - reference(); }
};

// n indices below n a call, 32 random bits each.
void draw(uint64_t seed, uint64_t& counter, std::vector<uint32_t>& indices) {
  const uint64_t n = indices.size();
  for (std::size_t i = 0; i < n; i += 4) {
    const auto random = philox(seed, counter++);
    for (std::size_t j = 0; j < 4 && i + j < n; ++j)
      indices[i + j] = static_cast<uint32_t>((uint64_t{random[j]} * n) >> 32);
  }
}

std::array<double, 2> bootstrap(std::span<const Pair> pairs, uint64_t seed, int64_t resamples) {
  std::vector<double> deltas;
  std::vector<uint32_t> indices(pairs.size());
  uint64_t counter = 0;
  while (std::ssize(deltas) < resamples) {
    draw(seed, counter, indices);
    Sums sums;
    for (const uint32_t i : indices) sums.add(pairs[i]);
    // A sample without weight says nothing; possible only where items of weight 0 exist.
    if (sums.weight <= 0 || sums.reference_weight <= 0) {
      --resamples;
      continue;
    }
    deltas.push_back(sums.delta());
  }
  if (deltas.empty()) return {};
  std::sort(deltas.begin(), deltas.end());
  return {quantile(deltas, 0.025), quantile(deltas, 0.975)};
}

std::optional<PairedResult::Flips> flips_of(std::span<const Pair> pairs) {
  PairedResult::Flips flips;
  int64_t both = 0, neither = 0, items = 0;
  for (const Pair& pair : pairs) {
    if (pair.weight <= 0 || pair.reference_weight <= 0) continue;
    const double a = pair.value / pair.weight, b = pair.reference_value / pair.reference_weight;
    if ((a != 0 && a != 1) || (b != 0 && b != 1)) return std::nullopt;
    ++items;
    if (a == b)
      ++(a == 1 ? both : neither);
    else
      ++(a == 1 ? flips.won : flips.lost);
  }
  if (items == 0) return std::nullopt;
  const auto n = static_cast<double>(items);
  flips.agreement = static_cast<double>(both + neither) / n;
  const double p_model = static_cast<double>(both + flips.won) / n;
  const double p_reference = static_cast<double>(both + flips.lost) / n;
  const double chance = p_model * p_reference + (1 - p_model) * (1 - p_reference);
  if (chance < 1) flips.kappa = (flips.agreement - chance) / (1 - chance);
  flips.p = sign_test(flips.won, flips.lost);
  return flips;
}

std::vector<double> ranks(std::span<const double> x) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] < x[b]; });
  std::vector<double> rank(x.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i;
    while (end < order.size() && x[order[end]] == x[order[i]]) ++end;
    for (std::size_t j = i; j < end; ++j) rank[order[j]] = static_cast<double>(i + end - 1) / 2;
    i = end;
  }
  return rank;
}

}  // namespace

PairedResult compare_pairs(std::span<const Pair> pairs, uint64_t seed, int64_t resamples) {
  assert(!pairs.empty());
  Sums sums;
  for (const Pair& pair : pairs) sums.add(pair);
  PairedResult result;
  result.items = std::ssize(pairs);
  result.reference = sums.reference();
  result.delta = sums.delta();
  double squares = 0;
  for (const Pair& pair : pairs) {
    const double d =
        (pair.value - sums.ratio() * pair.weight) / sums.weight -
        (pair.reference_value - sums.reference() * pair.reference_weight) / sums.reference_weight;
    squares += d * d;
  }
  const auto n = static_cast<double>(pairs.size());
  if (pairs.size() > 1) result.error = std::sqrt(n / (n - 1) * squares);
  result.interval = bootstrap(pairs, seed, resamples);
  result.flips = flips_of(pairs);
  return result;
}

double sign_test(int64_t won, int64_t lost) {
  const int64_t n = won + lost;
  const int64_t fewer = std::min(won, lost);
  if (n == 0 || 2 * fewer == n) return 1;
  double tail = 0;
  for (int64_t k = 0; k <= fewer; ++k)
    tail += std::exp(
        std::lgamma(static_cast<double>(n + 1)) - std::lgamma(static_cast<double>(k + 1)) -
        std::lgamma(static_cast<double>(n - k + 1)) - static_cast<double>(n) * std::log(2.0));
  return std::min(1.0, 2 * tail);
}

std::optional<double> spearman(std::span<const double> x, std::span<const double> y) {
  assert(x.size() == y.size());
  if (x.size() < 2) return std::nullopt;
  const auto a = ranks(x), b = ranks(y);
  const double mean = static_cast<double>(x.size() - 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean) * (b[i] - mean);
    aa += (a[i] - mean) * (a[i] - mean);
    bb += (b[i] - mean) * (b[i] - mean);
  }
  if (aa == 0 || bb == 0) return std::nullopt;
  return ab / std::sqrt(aa * bb);
}

}  // namespace crumb::eval

// Two models at the same items: what changed, and whether it could be chance.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace crumb::eval {

// One item at both models. A metric is sum(value) / sum(weight).
struct Pair {
  double value = 0, weight = 1;                      // the model compared
  double reference_value = 0, reference_weight = 1;  // the reference
};

struct PairedResult {
  int64_t items = 0;
  double reference = 0;  // its metric
  double delta = 0;      // metric - reference's
  // Linearised ratio estimator over items taken as independent; for weights of 1 the paired
  // standard error sd(a - b) / sqrt(n). 0 for one item.
  double error = 0;
  // Percentiles 2.5 and 97.5 of `resamples` bootstrap samples of items, drawn with `seed`
  // (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3).
  std::array<double, 2> interval{};

  // If every value / weight of both is 0 or 1:
  struct Flips {
    double agreement = 0;         // share of items right at both or wrong at both
    std::optional<double> kappa;  // Cohen's; nothing if chance alone would always agree
    int64_t won = 0, lost = 0;    // right only here, right only at the reference
    double p = 1;                 // two-sided exact binomial test of won = lost (McNemar)
  };
  std::optional<Flips> flips;
};

inline constexpr int64_t kResamples = 10000;

// pairs not empty, sums of weights > 0. The same arguments give the same bits.
PairedResult compare_pairs(std::span<const Pair> pairs, uint64_t seed,
                           int64_t resamples = kResamples);

// Two-sided P of a split at least as uneven as won : lost, each with probability 1/2. 1 for 0 : 0.
double sign_test(int64_t won, int64_t lost);

// Rank correlation of x and y, equal values share their mean rank (Spearman, 1904). Nothing for
// fewer than two points or if one of them is constant.
std::optional<double> spearman(std::span<const double> x, std::span<const double> y);

}  // namespace crumb::eval

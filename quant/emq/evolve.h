// Evolution of proxies on a benchmark of measured plans (EMQ, arXiv:2307.10554, section 3.3).
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "quant/emq/proxy.h"

namespace crumb::quant::emq {

// Measured plans: for every matrix the index of a width, and the divergence that came of it.
struct Benchmark {
  std::vector<std::string> matrices;
  std::vector<int> widths;
  std::vector<std::vector<int>> plans;
  std::vector<double> kl;
  std::vector<int64_t> seeds;
};
// From bench/quality/mq_bench.py's file. Throws Error(kUsage) for another text.
Benchmark benchmark_from_json(const std::string& text);
// The plans whose widths are all among these.
Benchmark only_widths(const Benchmark& benchmark, const std::vector<int>& widths);

// Spearman's rank correlation, ties at their mean rank; 0 if one side is constant.
double spearman(std::span<const double> x, std::span<const double> y);
// 95 % interval of it over resampled pairs (bootstrap, seeded).
std::pair<double, double> spearman_interval(std::span<const double> x, std::span<const double> y,
                                            uint64_t seed, int resamples = 1000);
// Of scores against the plans at these places.
double correlation(const Scores& scores, const Benchmark& benchmark,
                   std::span<const std::size_t> places);

struct EvolveOptions {
  Mode mode = Mode::kErr;
  int population = 60, iterations = 1000;
  uint64_t seed = 1;
  bool diversity = true;  // diversity-prompting selection: a newcomer may beat the offspring
  bool screening = true;  // equal formulas once; bad ones rejected on a few matrices
  int threads = 0;
};
struct EvolveReport {
  Proxy best;
  double fitness = 0;           // |Spearman| on the training plans
  bool falls = false;           // whether a larger score means less divergence
  int64_t evaluated = 0;        // whole evaluations
  int64_t known = 0;            // formulas met again
  int64_t rejected = 0;         // by the few matrices
  std::vector<double> history;  // best fitness after every iteration
};
// Fitness on the plans at `train`. Invalid proxies (not finite, or the same score for all plans)
// never enter the population. Deterministic for a seed, whatever the threads. `report` (may be
// empty) is called after every iteration; false throws Interrupted.
EvolveReport evolve(std::span<const MatrixTerms> terms, const Benchmark& benchmark,
                    std::span<const std::size_t> train, const EvolveOptions& options,
                    const std::function<bool(int iteration, double best)>& report);

}  // namespace crumb::quant::emq

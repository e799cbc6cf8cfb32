// The searches: APQ's evolution over the joint space under a budget of time, and the sequential
// baseline that it is compared with.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/source.h"
#include "quant/apq/latency.h"
#include "quant/apq/meter.h"
#include "quant/apq/predictor.h"
#include "quant/apq/samples.h"
#include "quant/apq/space.h"

namespace crumb::quant::apq {

// Quality of subnets, larger is better; called for a whole generation.
using Score = std::function<std::vector<double>(std::span<const Subnet>)>;
// Nanoseconds of a subnet's token.
using Cost = std::function<double(const Subnet&)>;

// Everything cut as far as it goes, at the widths that cost least.
Subnet cheapest_subnet(const Space& space, const Cost& cost);

struct EvolveOptions {
  int population = 100, parents = 25, mutants = 50, crossovers = 50, generations = 500;
  double mutation = 0.1;  // probability of every choice of a layer
  uint64_t seed = 1;
};
struct Found {
  Subnet subnet;
  double score = 0, ns = 0;
};
struct EvolveReport {
  std::vector<Found> best;        // distinct, best first, at most `population`
  std::vector<double> history;    // best score after every generation
  int64_t evaluated = 0;          // subnets scored
  int64_t rejected = 0;           // children over the limit
  int64_t crossed_survivors = 0;  // children of two parents that became parents themselves
};

// Every generation the best `parents` make children by mutation and by crossover, all of which are
// scored and compete (the release scored only the mutants); what is over `limit` is drawn again.
// `start` joins the first population. Deterministic for a seed. `report` (may be empty) is called
// after every generation; false throws Interrupted. Throws Error(kUsage) if nothing meets the
// limit.
EvolveReport evolve(const Space& space, const Score& score, const Cost& cost, double limit,
                    std::span<const Subnet> start, const EvolveOptions& options,
                    const std::function<bool(int generation, double best)>& report);

// Relative squared errors of rounding to nearest, [layer][site][width], means over the matrices of
// a site by their weights.
using SiteErrors = std::vector<std::array<std::vector<double>, kSites>>;
SiteErrors site_errors(const models::SourceModel& source, const Space& space, const Method& method,
                       int threads, const ProgressFn& progress);

// Prune first, then allocate: layers of least influence go until the first `depth` of what must be
// saved (from `start_ns`, the whole model's at `start_width`) is saved, then FFN units and KV heads
// that add least for their time until `depth + sizes` of it is, then the widths with the least sum
// of errors that meet the limit (exact knapsack). Each step greedy; what a step cannot save is left
// to the next, and where widths cannot save it sizes and layers go on. Throws Error(kUsage) if the
// limit cannot be met.
struct Split {
  double depth = 1.0 / 3, sizes = 1.0 / 3;
};
Subnet sequential(const Setting& setting, const LatencyTable& table, const SiteErrors& errors,
                  uint8_t start_width, double limit, const Split& split);

// Kendall's tau of predictors on the last `held_out` of rounded examples in a shuffled order, with
// float examples first and without, by how many of the others they learned from.
struct TransferRow {
  int64_t examples = 0;
  std::vector<double> with, without;  // one a split
};
std::vector<TransferRow> measure_transfer(std::span<const Example> whole,
                                          std::span<const Example> rounded, int64_t held_out,
                                          std::span<const int64_t> sizes, int splits, uint64_t seed,
                                          int threads, const FitOptions& options = {});

// A predictor of rounded subnets that learned from float ones first; none: from rounded ones only.
Predictor train_predictor(std::span<const Example> whole, std::span<const Example> rounded,
                          uint64_t seed, const FitOptions& options = {});

}  // namespace crumb::quant::apq

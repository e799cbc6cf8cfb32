// APQ from samples to verified winners: float subnets teach a predictor, rounded ones teach its
// successor, evolution finds the best under each limit of time, and what it finds is measured.
// The mean of several predictors of different seeds is what evolution climbs.
//
// Kept of the paper: one joint space, transfer from float to rounded, a measured table of
// latencies, evolution, verification of winners. Ours: the whole model is the once-for-all network;
// measured winners join the examples for another round (`rounds`); a winner is the best measured
// subnet that meets the limit, so that a looser limit is never worse on the text searched on.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "quant/apq/search.h"

namespace crumb::quant::apq {

struct JointOptions {
  int64_t samples = 300, rounded = 300;  // float and rounded subnets measured
  int64_t held_out = 60;                 // of the rounded ones, that the transfer is judged on
  int rounds = 4;
  int64_t verified = 16;               // measured a round and limit
  std::vector<double> limits = {0.7};  // of the whole model's time at 4 bits
  std::vector<int64_t> transfer_sizes = {30, 60, 120, 240};
  int transfer_splits = 5;
  int controls = 5;  // random subnets measured for each limit
  EvolveOptions evolve;
  FitOptions fit;
  uint64_t seed = 1;
  int threads = 0;
};

struct Winner {
  Subnet subnet;
  double kl = 0, ns = 0;
};
struct LimitReport {
  double limit = 0, ns = 0;  // a fraction, and what it comes to
  Winner joint;
  double predicted = 0;            // KL that the last predictor expects of it
  std::vector<Winner> sequential;  // by each of kSplits
  std::vector<Winner> random;      // controls, fewer where the limit is hard to meet
  int64_t evaluated = 0, rejected = 0, crossed_survivors = 0;  // of the last round
};
struct JointReport {
  Winner whole;  // at 4 bits
  std::vector<TransferRow> transfer;
  std::vector<LimitReport> limits;
  double sample_seconds = 0, fit_seconds = 0, search_seconds = 0, verify_seconds = 0;
};

// How much layers and sizes save before widths do; the first is the baseline, the others show what
// the choice is worth.
inline constexpr Split kSplits[] = {{1.0 / 3, 1.0 / 3}, {0, 0.5}, {0.5, 0}, {0, 0.8}, {0.5, 0.5}};

// Progress stages: float subnets, rounded subnets, errors, search, winners. Throws what its parts
// throw; Error(kUsage) for limits that cannot be met or a space without 4 bits.
JointReport search_jointly(const models::SourceModel& source, const SubnetMeter& meter,
                           const Setting& setting, const LatencyTable& table, const Method& method,
                           const JointOptions& options, SampleStore* store,
                           const ProgressFn& progress);

}  // namespace crumb::quant::apq

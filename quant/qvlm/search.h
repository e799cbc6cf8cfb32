// Q-VLM's search on a language model: clips site by site, entropies, the partition, clips jointly
// in its blocks, and the controls beside.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "quant/qvlm/clip_search.h"

namespace crumb::quant::qvlm {

struct QvlmOptions {
  RoundingForm form;
  ClipCandidates candidates;
  int64_t most = 3;      // sites of a block
  double budget = 0.25;  // of the evaluations of blocks of `most` everywhere
  bool by_mean = false;  // the released rule in place of the cheapest partition
  bool fixed = false;    // also search blocks of `most` everywhere
  bool pairs = false;    // also measure the dependency of every pair of neighbours
  int threads = 0;       // 0: all; the result is the same
};

// One way to choose clips.
struct Setting {
  std::string name;  // "unclipped", "site by site", "partition", "fixed blocks"
  std::vector<Clips> clips;
  int64_t evaluations = 0;  // of the joint search
  double block_error = 0;   // ClipSearch::error, the mean over fixed blocks of `most` sites
  ChainDivergence checked;  // on text that was not searched on
  double seconds = 0;       // of its search
};
// Sites k and k + 1.
struct Pair {
  int64_t site = 0;       // k
  double entropy = 0;     // of what k + 1 reads
  double error = 0;       // of k alone
  double dependency = 0;  // block error of clips found separately less that of those found jointly
};
struct QvlmReport {
  std::vector<std::string> names;  // of the sites
  std::vector<ClipSearch::Site> sites;
  Partition partition;
  std::vector<Setting> settings;
  std::vector<Pair> pairs;
  double entropy_r2 = 0, error_r2 = 0;  // with the dependency, over the pairs
};

// Squared correlation (Pearson) of two lists; 0 if one of them does not vary.
double r_squared(std::span<const double> x, std::span<const double> y);

// `check`: windows that divergence is measured on. Throws what SiteChain and ClipSearch throw.
QvlmReport search_clips(const models::SourceModel& source, const CalibrationWindows& windows,
                        const CalibrationWindows& check, const QvlmOptions& options,
                        const ProgressFn& progress);

}  // namespace crumb::quant::qvlm

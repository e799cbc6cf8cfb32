// Clips of inputs and weights: site by site, and jointly inside blocks of dependent sites (Q-VLM,
// arXiv:2410.08119, sections 3.1 and 3.2; the released code has no joint search).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "engine/progress.h"
#include "quant/qvlm/partition.h"
#include "quant/qvlm/site_chain.h"

namespace crumb::quant::qvlm {

struct ClipCandidates {
  std::vector<double> input = {1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4};
  std::vector<double> weight = {1, 0.95, 0.9};
};

// Error of a block: sites [first, first + clips.size()) rounded, from the full-precision state
// before them, against the full-precision state behind them. With d the error and y the result
// (what the next site reads, or behind o and down what the block has added to the stream) of a
// token,
//   mean over tokens of  sum |d|^p / max(sum |y|^p, a thousandth of the mean),  p = 2.
// Relative by token, because a few tokens of huge states would rule a common sum.
class ClipSearch {
 public:
  // Runs the chain once in full precision and keeps every state. `chain` must outlive it.
  // Throws what SiteChain throws, Interrupted.
  ClipSearch(const SiteChain& chain, ClipCandidates candidates, int threads, ProgressFn progress);

  const ClipCandidates& candidates() const { return candidates_; }

  struct Site {
    Clips clips;
    double error = 0;    // of the site alone
    double entropy = 0;  // of its input's codes at these clips (entropy.h)
  };
  // The control: every site alone, all pairs of clips; of equals the larger clips.
  std::vector<Site> search_each() const;

  double error(int64_t first, std::span<const Clips> clips) const;

  struct Block {
    int64_t first = 0;
    std::vector<Clips> clips;
    double error = 0;           // of these clips
    double separate_error = 0;  // of those it started from
    int64_t evaluations = 0;
  };
  // All combinations of input clips of the block's sites, weight clips as in `from` [sites of the
  // chain]; never worse than `from` in the block's error.
  Block search_block(int64_t first, int64_t length, std::span<const Clips> from) const;
  // The same for every block of two or more sites; blocks of one keep `from`.
  std::vector<Block> search_blocks(const Partition& partition, std::span<const Clips> from) const;

 private:
  double error_of(const ChainState& state, int64_t first, int64_t end) const;
  void tell(const char* stage, int64_t done, int64_t total) const;

  const SiteChain& chain_;
  ClipCandidates candidates_;
  int threads_;
  ProgressFn progress_;
  std::vector<ChainState> states_;  // [sites + 1]
};

// The clips of `from` with those of blocks in their places.
std::vector<Clips> with_blocks(std::span<const Clips> from,
                               std::span<const ClipSearch::Block> blocks);

// Mean KL(full precision || all sites rounded with these clips) in nats over the chain's tokens,
// and the share of tokens whose likeliest next token is the same.
struct ChainDivergence {
  double kl = 0, top1 = 0;
};
// For several settings at once; each on one thread. Throws what SiteChain throws, Interrupted.
std::vector<ChainDivergence> divergence(const SiteChain& chain,
                                        std::span<const std::vector<Clips>> settings, int threads,
                                        const ProgressFn& progress);

}  // namespace crumb::quant::qvlm

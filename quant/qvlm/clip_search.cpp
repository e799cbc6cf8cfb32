#include "quant/qvlm/clip_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "quant/parallel.h"
#include "quant/qvlm/entropy.h"
#include "quant/train/ops.h"

namespace crumb::quant::qvlm {
namespace {

constexpr int64_t kLogitRows = 32;  // tokens whose logits are held at a time

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

void run_rounded(const SiteChain& chain, int64_t site, const SiteWeights& weights, double clip,
                 ChainState* state) {
  const auto codes =
      input_codes(chain.seen(site, *state), chain.width(site), chain.form().input_bits, clip);
  chain.run(site, weights, &codes, state);
}

// Every combination of input clips, depth first, so that sites in front are run once for all that
// follows behind them. Calls leaf(choices, state) for each.
struct Combinations {
  const SiteChain& chain;
  const std::vector<double>& clips;
  int64_t first;
  std::span<const SiteWeights> weights;  // of the block's sites

  template <class Leaf>
  void visit(std::size_t depth, const ChainState& before, std::vector<std::size_t>& choices,
             const Leaf& leaf) const {
    if (depth == weights.size()) {
      leaf(choices, before);
      return;
    }
    for (choices[depth] = 0; choices[depth] < clips.size(); ++choices[depth]) {
      ChainState state = before;
      run_rounded(chain, first + static_cast<int64_t>(depth), weights[depth], clips[choices[depth]],
                  &state);
      visit(depth + 1, state, choices, leaf);
    }
  }
};

double log_sum(std::span<const float> z, float most) {
  double sum = 0;
  for (const float v : z) sum += std::exp(static_cast<double>(v - most));
  return std::log(sum) + static_cast<double>(most);
}

ChainDivergence divergence_of(std::span<const float> p, std::span<const float> q, int64_t V) {
  ChainDivergence sum;
  for (std::size_t at = 0; at < p.size(); at += size_of(V)) {
    const auto a = p.subspan(at, size_of(V)), b = q.subspan(at, size_of(V));
    const auto top_a = std::ranges::max_element(a), top_b = std::ranges::max_element(b);
    const double log_a = log_sum(a, *top_a), log_b = log_sum(b, *top_b);
    double kl = 0;
    for (std::size_t v = 0; v < a.size(); ++v) {
      const double l = static_cast<double>(a[v]) - log_a;
      kl += std::exp(l) * (l - static_cast<double>(b[v]) + log_b);
    }
    sum.kl += kl;
    sum.top1 += top_a - a.begin() == top_b - b.begin() ? 1 : 0;
  }
  return sum;
}

}  // namespace

ClipSearch::ClipSearch(const SiteChain& chain, ClipCandidates candidates, int threads,
                       ProgressFn progress)
    : chain_(chain),
      candidates_(std::move(candidates)),
      threads_(threads),
      progress_(std::move(progress)) {
  states_.push_back(chain.start());
  for (int64_t site = 0; site < chain.sites(); ++site) {
    tell("full precision", site, chain.sites());
    ChainState state = states_.back();
    chain.run(site, chain.weights(site), nullptr, &state);
    states_.push_back(std::move(state));
  }
}

void ClipSearch::tell(const char* stage, int64_t done, int64_t total) const {
  if (progress_ && !progress_({stage, "", done, total})) throw Interrupted{};
}

double ClipSearch::error_of(const ChainState& state, int64_t first, int64_t end) const {
  const ChainState& before = states_[size_of(first)];
  const ChainState& right = states_[size_of(end)];
  const bool added = end % 2 == 0;  // behind o or down
  const auto& y = added ? right.stream : right.input;
  const auto& x = added ? state.stream : state.input;
  const auto T = size_of(chain_.tokens()), width = y.size() / T;
  std::vector<double> wrong(T), whole(T);
  double mean = 0;
  for (std::size_t t = 0; t < T; ++t) {
    for (std::size_t k = t * width; k < (t + 1) * width; ++k) {
      const double d = static_cast<double>(x[k]) - static_cast<double>(y[k]);
      const double v = static_cast<double>(added ? y[k] - before.stream[k] : y[k]);
      wrong[t] += d * d;
      whole[t] += v * v;
    }
    mean += whole[t] / static_cast<double>(T);
  }
  double sum = 0;
  for (std::size_t t = 0; t < T; ++t)
    if (wrong[t] > 0) sum += wrong[t] / std::max(whole[t], 1e-3 * mean);
  return sum / static_cast<double>(T);
}

std::vector<ClipSearch::Site> ClipSearch::search_each() const {
  std::vector<Site> sites(size_of(chain_.sites()));
  std::vector<double> errors(candidates_.input.size());
  for (int64_t site = 0; site < chain_.sites(); ++site) {
    tell("site by site", site, chain_.sites());
    Site& best = sites[size_of(site)];
    best.error = std::numeric_limits<double>::infinity();
    const SiteWeights weights = chain_.weights(site);
    for (const double weight : candidates_.weight) {
      const SiteWeights rounded = chain_.rounded(weights, site, weight);
      parallel_rows(std::ssize(errors), threads_, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          ChainState state = states_[size_of(site)];
          run_rounded(chain_, site, rounded, candidates_.input[size_of(i)], &state);
          errors[size_of(i)] = error_of(state, site, site + 1);
        }
      });
      for (std::size_t i = 0; i < errors.size(); ++i)
        if (errors[i] < best.error) best = {{candidates_.input[i], weight}, errors[i], 0};
    }
    const auto codes = input_codes(chain_.seen(site, states_[size_of(site)]), chain_.width(site),
                                   chain_.form().input_bits, best.clips.input);
    best.entropy = activation_entropy(codes.codes, chain_.width(site));
  }
  return sites;
}

double ClipSearch::error(int64_t first, std::span<const Clips> clips) const {
  ChainState state = states_[size_of(first)];
  int64_t site = first;
  for (const Clips& one : clips) {
    run_rounded(chain_, site, chain_.rounded(chain_.weights(site), site, one.weight), one.input,
                &state);
    ++site;
  }
  return error_of(state, first, site);
}

ClipSearch::Block ClipSearch::search_block(int64_t first, int64_t length,
                                           std::span<const Clips> from) const {
  const auto own = from.subspan(size_of(first), size_of(length));
  Block block{first, {own.begin(), own.end()}, error(first, own), 0, 0};
  block.separate_error = block.error;
  std::vector<SiteWeights> weights;
  for (int64_t i = 0; i < length; ++i)
    weights.push_back(chain_.rounded(chain_.weights(first + i), first + i, own[size_of(i)].weight));
  // The first site's clips are shared between threads, each with all that follows.
  const auto& clips = candidates_.input;
  struct Best {
    double error = std::numeric_limits<double>::infinity();
    std::vector<std::size_t> choices;
  };
  std::vector<Best> bests(clips.size());
  parallel_rows(std::ssize(clips), threads_, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ChainState state = states_[size_of(first)];
      run_rounded(chain_, first, weights.front(), clips[size_of(i)], &state);
      std::vector<std::size_t> choices(size_of(length - 1));
      const Combinations rest{chain_, clips, first + 1, std::span(weights).subspan(1)};
      Best& best = bests[size_of(i)];
      rest.visit(0, state, choices,
                 [&](const std::vector<std::size_t>& chosen, const ChainState& behind) {
                   const double found = error_of(behind, first, first + length);
                   if (found < best.error) best = {found, chosen};
                 });
    }
  });
  for (std::size_t i = 0; i < bests.size(); ++i) {
    if (bests[i].error >= block.error) continue;
    block.error = bests[i].error;
    block.clips.front().input = clips[i];
    for (std::size_t k = 0; k < bests[i].choices.size(); ++k)
      block.clips[k + 1].input = clips[bests[i].choices[k]];
  }
  block.evaluations = joint_evaluations({length}, std::ssize(clips));
  return block;
}

std::vector<ClipSearch::Block> ClipSearch::search_blocks(const Partition& partition,
                                                         std::span<const Clips> from) const {
  std::vector<Block> blocks;
  const int64_t total = joint_evaluations(partition, std::ssize(candidates_.input));
  int64_t first = 0, done = 0;
  for (const int64_t length : partition) {
    tell("joint", done, total);
    if (length > 1) {
      blocks.push_back(search_block(first, length, from));
      done += blocks.back().evaluations;
    }
    first += length;
  }
  return blocks;
}

std::vector<Clips> with_blocks(std::span<const Clips> from,
                               std::span<const ClipSearch::Block> blocks) {
  std::vector<Clips> clips(from.begin(), from.end());
  for (const ClipSearch::Block& block : blocks)
    std::ranges::copy(block.clips, clips.begin() + block.first);
  return clips;
}

std::vector<ChainDivergence> divergence(const SiteChain& chain,
                                        std::span<const std::vector<Clips>> settings, int threads,
                                        const ProgressFn& progress) {
  // The last one is full precision.
  std::vector<ChainState> states(settings.size() + 1, chain.start());
  for (int64_t site = 0; site < chain.sites(); ++site) {
    if (progress && !progress({"divergence", "", site, chain.sites() + 1})) throw Interrupted{};
    const SiteWeights weights = chain.weights(site);
    parallel_rows(std::ssize(states), threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        ChainState& state = states[size_of(i)];
        if (size_of(i) == settings.size()) {
          chain.run(site, weights, nullptr, &state);
          continue;
        }
        const Clips& clips = settings[size_of(i)][size_of(site)];
        run_rounded(chain, site, chain.rounded(weights, site, clips.weight), clips.input, &state);
      }
    });
  }
  std::vector<ChainDivergence> sums(settings.size());
  for (int64_t t = 0; t < chain.tokens(); t += kLogitRows) {
    const int64_t n = std::min(kLogitRows, chain.tokens() - t);
    const auto right = chain.logits(states.back(), t, n);
    parallel_rows(std::ssize(sums), threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto part =
            divergence_of(right, chain.logits(states[size_of(i)], t, n), std::ssize(right) / n);
        sums[size_of(i)].kl += part.kl;
        sums[size_of(i)].top1 += part.top1;
      }
    });
  }
  for (ChainDivergence& sum : sums) {
    sum.kl /= static_cast<double>(chain.tokens());
    sum.top1 /= static_cast<double>(chain.tokens());
  }
  return sums;
}

}  // namespace crumb::quant::qvlm

#include "quant/apq/search.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>
#include <string>

#include "kernels/pack.h"
#include "models/errors.h"
#include "models/tensors.h"
#include "quant/allocation.h"
#include "quant/block_job.h"
#include "quant/parallel.h"
#include "quant/report.h"
#include "quant/rtn.h"

namespace crumb::quant::apq {
namespace {

constexpr int kTries = 2000;  // draws for one place in the population that meets the limit

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// A member of the population, and how it came.
struct Member {
  Found found;
  bool crossed = false;
};

void require_limit(double least, double limit) {
  if (least <= limit) return;
  throw Error(ExitCode::kUsage,
              "no subnet meets the limit (expected at least " + std::to_string(least) +
                  " ns a token, found " + std::to_string(limit) + ")",
              "a looser --limits, or smaller --widths");
}

class Evolution {
 public:
  Evolution(const Space& space, const Score& score, const Cost& cost, double limit,
            const EvolveOptions& options)
      : space_(space),
        score_(score),
        cost_(cost),
        limit_(limit),
        o_(options),
        rng_(o_.seed),
        smallest_(cheapest_subnet(space, cost)) {
    require_limit(cost(smallest_), limit);
  }

  EvolveReport run(std::span<const Subnet> start, const std::function<bool(int, double)>& tell) {
    std::vector<Subnet> first;
    for (const Subnet& subnet : start)
      if (cost_(subnet) <= limit_) first.push_back(subnet);
    while (std::ssize(first) < o_.population) first.push_back(drawn(first));
    enter(first, {});
    for (int generation = 0; generation < o_.generations; ++generation) {
      keep(o_.parents);
      for (const Member& parent : population_) report_.crossed_survivors += parent.crossed ? 1 : 0;
      for (Member& parent : population_) parent.crossed = false;  // counted once
      std::vector<Subnet> children;
      std::vector<bool> of_two;
      for (int i = 0; i < o_.mutants + o_.crossovers; ++i) {
        const bool by_two = i >= o_.mutants;
        if (auto child = child_of(by_two)) {
          children.push_back(*std::move(child));
          of_two.push_back(by_two);
        }
      }
      enter(children, of_two);
      report_.history.push_back(best().score);
      if (tell && !tell(generation + 1, best().score)) throw Interrupted{};
    }
    keep(o_.population);
    for (const Member& member : population_) report_.best.push_back(member.found);
    return std::move(report_);
  }

 private:
  const Found& best() const {
    return std::ranges::max_element(population_, {}, [](const Member& m) { return m.found.score; })
        ->found;
  }
  const Subnet& parent() {
    const auto n = std::min<std::size_t>(population_.size(), size_of(o_.parents));
    return population_[rng_() % n].found.subnet;
  }
  bool fits(const Subnet& subnet) {
    if (cost_(subnet) <= limit_) return true;
    ++report_.rejected;
    return false;
  }
  // A random subnet within the limit, or one between it and the smallest where these are rare.
  Subnet drawn(std::span<const Subnet> others) {
    for (int i = 0; i < kTries; ++i) {
      Subnet one = random_subnet(space_, rng_);
      if (i >= kTries / 4) one = mutated(space_, smallest_, 0.2, rng_);
      if (i >= kTries / 2 && !others.empty())
        one = mutated(space_, others[rng_() % others.size()], o_.mutation, rng_);
      if (fits(one)) return one;
    }
    return smallest_;
  }
  std::optional<Subnet> child_of(bool by_two) {
    for (int i = 0; i < kTries / 10; ++i) {
      Subnet child = by_two ? crossed(space_, parent(), parent(), rng_)
                            : mutated(space_, parent(), o_.mutation, rng_);
      if (fits(child)) return child;
    }
    return std::nullopt;
  }
  // Children that are new join the population, scored together.
  void enter(std::span<const Subnet> children, const std::vector<bool>& of_two) {
    std::vector<Subnet> fresh;
    std::vector<bool> by_two;
    for (std::size_t i = 0; i < children.size(); ++i) {
      if (!known_.insert(text_of(children[i])).second) continue;
      fresh.push_back(children[i]);
      by_two.push_back(!of_two.empty() && of_two[i]);
    }
    const std::vector<double> scores = fresh.empty() ? std::vector<double>() : score_(fresh);
    report_.evaluated += std::ssize(fresh);
    for (std::size_t i = 0; i < fresh.size(); ++i)
      population_.push_back({{fresh[i], scores[i], cost_(fresh[i])}, by_two[i]});
  }
  void keep(int count) {
    std::ranges::stable_sort(population_, std::greater<>{},
                             [](const Member& m) { return m.found.score; });
    if (std::ssize(population_) > count)
      population_.erase(population_.begin() + count, population_.end());
  }

  const Space& space_;
  const Score& score_;
  const Cost& cost_;
  double limit_;
  EvolveOptions o_;
  std::mt19937_64 rng_;
  Subnet smallest_;
  std::vector<Member> population_;
  std::set<std::string> known_;
  EvolveReport report_;
};

// What a step that makes one layer's FFN or attention smaller saves, and what it costs: the part of
// the layer's contribution that goes, by its energy.
struct Step {
  std::size_t layer = 0;
  bool heads = false;
  double saved = 0, lost = 0;
};

double energy(std::span<const double> values) {
  return std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
}

// Energy of the `count` that add most.
double kept_energy(std::vector<double> values, int64_t count) {
  std::ranges::sort(values, std::greater<>{});
  return energy(std::span(values).first(size_of(count)));
}

class Sequence {
 public:
  Sequence(const Setting& setting, const LatencyTable& table, uint8_t width)
      : s_(setting), table_(table), subnet_(whole_subnet(setting.space, width)), width_(width) {}

  double ns() const { return latency_of(table_, s_.config, s_.space, subnet_); }
  const Subnet& subnet() const { return subnet_; }

  // The layer of least influence; false: no more may go.
  bool drop_layer() {
    std::optional<std::size_t> least;
    for (int64_t at = 0; at < s_.space.layers; ++at) {
      const auto i = size_of(at);
      if (!s_.space.may_drop(at) || !subnet_[i].present) continue;
      if (!least || s_.importance[i].influence < s_.importance[*least].influence) least = i;
    }
    if (!least || dropped(subnet_) == s_.space.most_dropped) return false;
    subnet_[*least].present = false;
    return true;
  }
  // One step at a time, the one that loses least for what it saves; false: no step is left.
  bool shrink(double target, bool all) {
    while (ns() > target) {
      const auto step = best_step();
      if (!step) return false;
      LayerChoice& layer = subnet_[step->layer];
      ++(step->heads ? layer.kv_heads : layer.ffn);
      if (!all) return true;
    }
    return true;
  }
  // The least sum of errors; false if even the fastest widths miss the limit.
  bool choose_widths(const SiteErrors& errors, double limit) {
    std::vector<Unit> units;
    std::vector<std::pair<std::size_t, std::size_t>> places;  // layer, site
    double fixed = table_.head_ns;
    for (std::size_t i = 0; i < subnet_.size(); ++i) {
      if (!subnet_[i].present) continue;
      LayerChoice layer = subnet_[i];
      layer.bits.fill(width_);
      const double base = layer_latency(table_, s_.config, s_.space, layer);
      fixed += base;
      for (std::size_t site = 0; site < kSites; ++site) {
        places.emplace_back(i, site);
        Unit& unit = units.emplace_back();
        double least = 0;
        std::vector<double> more;
        for (std::size_t w = 0; w < s_.space.widths.size(); ++w) {
          LayerChoice other = layer;
          other.bits[site] = static_cast<uint8_t>(w);
          more.push_back(layer_latency(table_, s_.config, s_.space, other) - base);
          least = std::min(least, more.back());
        }
        fixed += least;  // costs are what comes on top of the cheapest
        for (std::size_t w = 0; w < more.size(); ++w)
          unit.choices.push_back(
              {static_cast<int64_t>(std::ceil(more[w] - least)), errors[i][site][w]});
      }
    }
    const auto room = static_cast<int64_t>(limit - fixed);
    if (room < 0) return false;
    const Allocation allocation = allocate(units, room);
    for (std::size_t u = 0; u < places.size(); ++u)
      subnet_[places[u].first].bits[places[u].second] = static_cast<uint8_t>(allocation.choice[u]);
    return true;
  }

 private:
  std::optional<Step> best_step() const {
    std::optional<Step> best;
    for (std::size_t i = 0; i < subnet_.size(); ++i)
      for (const bool heads : {false, true}) {
        const LayerChoice& now = subnet_[i];
        const auto& sizes = heads ? s_.space.kv_heads : s_.space.ffn;
        const std::size_t at = heads ? now.kv_heads : now.ffn;
        if (!now.present || at + 1 >= sizes.size()) continue;
        LayerChoice next = now;
        ++(heads ? next.kv_heads : next.ffn);
        const auto& values = heads ? s_.importance[i].heads : s_.importance[i].units;
        const double all = energy(values);
        const double lost =
            all > 0 ? (kept_energy(values, sizes[at]) - kept_energy(values, sizes[at + 1])) / all
                    : 0;
        const double saved = layer_latency(table_, s_.config, s_.space, now) -
                             layer_latency(table_, s_.config, s_.space, next);
        if (saved <= 0) continue;
        if (!best || lost * best->saved < best->lost * saved) best = Step{i, heads, saved, lost};
      }
    return best;
  }

  const Setting& s_;
  const LatencyTable& table_;
  Subnet subnet_;
  uint8_t width_;
};

}  // namespace

Subnet cheapest_subnet(const Space& space, const Cost& cost) {
  Subnet least = whole_subnet(space, 0);
  for (LayerChoice& layer : least) {
    layer.ffn = static_cast<uint8_t>(space.ffn.size() - 1);
    layer.kv_heads = static_cast<uint8_t>(space.kv_heads.size() - 1);
  }
  int64_t out = 0;
  for (int64_t at = 0; at < space.layers && out < space.most_dropped; ++at) {
    if (!space.may_drop(at)) continue;
    least[size_of(at)].present = false;
    ++out;
  }
  for (std::size_t site = 0; site < kSites; ++site) {
    const auto set = [&](std::size_t width) {
      for (LayerChoice& layer : least) layer.bits[site] = static_cast<uint8_t>(width);
      return cost(least);
    };
    std::size_t cheapest = 0;
    double ns = set(0);
    for (std::size_t width = 1; width < space.widths.size(); ++width)
      if (const double now = set(width); now < ns) {
        ns = now;
        cheapest = width;
      }
    set(cheapest);
  }
  return least;
}

EvolveReport evolve(const Space& space, const Score& score, const Cost& cost, double limit,
                    std::span<const Subnet> start, const EvolveOptions& options,
                    const std::function<bool(int generation, double best)>& report) {
  return Evolution(space, score, cost, limit, options).run(start, report);
}

SiteErrors site_errors(const models::SourceModel& source, const Space& space, const Method& method,
                       int threads, const ProgressFn& progress) {
  SiteErrors errors;
  const ScaleSearch search =
      method.rule == ScaleRule::kAbsMax ? ScaleSearch::kAbsMax : ScaleSearch::kMse;
  for (int64_t layer = 0; layer < space.layers; ++layer) {
    if (progress && !progress({"errors", "", layer, space.layers})) throw Interrupted{};
    const train::BlockWeights block = train::read_block(source, layer);
    const train::BlockShape shape = train::shape_of(source.config, block);
    auto& own = errors.emplace_back();
    std::array<double, kSites> weights{};
    for (auto& site : own) site.assign(space.widths.size(), 0.0);
    for (const BlockMatrix& m : block_matrices()) {
      const std::vector<float>& w = block.*m.member;
      const int64_t K = train::linear_input_width(shape, m.input), N = std::ssize(w) / K;
      const auto site = static_cast<std::size_t>(m.input);
      const auto n = static_cast<double>(w.size());
      weights[site] += n;
      for (std::size_t i = 0; i < space.widths.size(); ++i) {
        const models::PackedData data =
            rtn(w, N, K, {space.widths[i], method.group, method.grid, search, {}},
                std::string(m.suffix), threads);
        const double lost = measure(w, data, threads).relative_error;
        own[site][i] += n * lost * lost;
      }
    }
    for (std::size_t site = 0; site < kSites; ++site)
      for (double& error : own[site]) error /= weights[site];
  }
  return errors;
}

Subnet sequential(const Setting& setting, const LatencyTable& table, const SiteErrors& errors,
                  uint8_t start_width, double limit, const Split& split) {
  Sequence sequence(setting, table, start_width);
  const double start = sequence.ns(), save = start - limit;
  while (sequence.ns() > start - split.depth * save && sequence.drop_layer()) {
  }
  sequence.shrink(start - (split.depth + split.sizes) * save, true);
  while (!sequence.choose_widths(errors, limit))
    if (!sequence.shrink(0, false) && !sequence.drop_layer())
      throw Error(ExitCode::kUsage,
                  "the sequential baseline cannot meet the limit (expected at least " +
                      std::to_string(sequence.ns()) + " ns a token, found " +
                      std::to_string(limit) + ")",
                  "a looser --limits, or smaller --widths");
  return sequence.subnet();
}

Predictor train_predictor(std::span<const Example> whole, std::span<const Example> rounded,
                          uint64_t seed, const FitOptions& options) {
  const Example& one = rounded.empty() ? whole.front() : rounded.front();
  Predictor predictor(std::ssize(one.architecture), std::max<int64_t>(1, std::ssize(one.widths)),
                      options.hidden, seed);
  predictor.fit(whole, options);
  FitOptions then = options;
  if (!whole.empty()) then.rate /= 3;  // what was learned must not be lost
  predictor.fit(rounded, then);
  return predictor;
}

std::vector<TransferRow> measure_transfer(std::span<const Example> whole,
                                          std::span<const Example> rounded, int64_t held_out,
                                          std::span<const int64_t> sizes, int splits, uint64_t seed,
                                          int threads, const FitOptions& options) {
  const auto count = std::ssize(rounded);
  std::vector<TransferRow> rows;
  for (const int64_t n : sizes)
    if (n + held_out <= count)
      rows.push_back(
          {n, std::vector<double>(size_of(splits)), std::vector<double>(size_of(splits))});
  std::vector<std::vector<Example>> orders;
  for (int split = 0; split < splits; ++split) {
    std::vector<Example> order(rounded.begin(), rounded.end());
    std::mt19937_64 rng(seed + static_cast<uint64_t>(split));
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng() % i]);
    orders.push_back(std::move(order));
  }
  const auto jobs = std::ssize(rows) * splits * 2;
  parallel_rows(jobs, threads, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) {
      TransferRow& row = rows[size_of(job / (2 * splits))];
      const auto split = size_of(job / 2 % splits);
      const std::span<const Example> all(orders[split]);
      const auto test = all.last(size_of(held_out));
      const bool with = job % 2 == 0;
      const Predictor predictor =
          train_predictor(with ? whole : std::span<const Example>(),
                          all.first(size_of(row.examples)), seed + split, options);
      std::vector<double> truth;
      for (const Example& example : test) truth.push_back(example.target);
      (with ? row.with : row.without)[split] = kendall(predictor.predict(test), truth);
    }
  });
  return rows;
}

}  // namespace crumb::quant::apq

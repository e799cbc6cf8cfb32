#include "quant/emq/evolve.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "engine/progress.h"
#include "models/errors.h"
#include "models/json.h"
#include "quant/parallel.h"

namespace crumb::quant::emq {
namespace {

constexpr double kInvalid = -1;
constexpr std::size_t kScreened = 4;  // plans that a proxy must tell apart, else it is rejected

std::vector<double> ranks_of(std::span<const double> x) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return x[i]; });
  std::vector<double> ranks(x.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i;
    while (end < order.size() && x[order[end]] == x[order[i]]) ++end;
    const double rank = 0.5 * static_cast<double>(i + end - 1);
    for (; i < end; ++i) ranks[order[i]] = rank;
  }
  return ranks;
}

bool finite(const Scores& scores) {
  return std::ranges::all_of(scores, [](const std::vector<double>& row) {
    return std::ranges::all_of(row, [](double v) { return std::isfinite(v); });
  });
}

class Evolution {
 public:
  Evolution(std::span<const MatrixTerms> terms, const Benchmark& benchmark,
            std::span<const std::size_t> train, const EvolveOptions& options)
      : terms_(terms), benchmark_(benchmark), train_(train), o_(options), rng_(options.seed) {}

  struct Individual {
    Proxy proxy;
    double fitness = kInvalid;  // |rho|
    double rho = 0;
  };

  EvolveReport run(const std::function<bool(int, double)>& tell) {
    EvolveReport report;
    std::vector<Individual> population;
    while (std::ssize(population) < o_.population) {
      const Individual one = judged(random_proxy(), report);
      if (one.fitness >= 0) population.push_back(one);
    }
    sort(population);
    for (int i = 0; i < o_.iterations; ++i) {
      Individual entrant = judged(child_of(population), report);
      if (o_.diversity) {
        const Individual newcomer = judged(random_proxy(), report);
        if (newcomer.fitness > entrant.fitness) entrant = newcomer;
      }
      if (entrant.fitness >= 0) {
        population.push_back(entrant);
        sort(population);
        population.pop_back();
      }
      report.history.push_back(population.front().fitness);
      if (tell && !tell(i + 1, population.front().fitness)) throw Interrupted{};
    }
    const Individual& best = population.front();
    report.best = best.proxy;
    report.fitness = best.fitness;
    report.falls = best.rho < 0;
    return report;
  }

 private:
  int draw(std::size_t n) { return static_cast<int>(rng_() % static_cast<uint64_t>(n)); }
  bool coin() { return (rng_() & 1) != 0; }
  int random_input() { return draw(o_.mode == Mode::kErr ? kTermNames.size() : kFixedTerms); }
  Proxy random_proxy() {
    Proxy p;
    p.mode = o_.mode;
    for (std::size_t side = 0; side < 2; ++side) {
      p.input[side] = random_input();
      for (int& op : p.unary[side]) op = draw(unary_ops().size());
    }
    p.binary = draw(binary_ops().size());
    return p;
  }
  // Crossover of two of the better half, then mutation, each with probability 1/2.
  Proxy child_of(const std::vector<Individual>& population) {
    const std::size_t half = std::max<std::size_t>(1, population.size() / 2);
    const Proxy a = population[static_cast<std::size_t>(draw(half))].proxy;
    const Proxy b = population[static_cast<std::size_t>(draw(half))].proxy;
    Proxy child = a;
    if (coin()) {
      for (std::size_t side = 0; side < 2; ++side) {
        if (coin()) child.input[side] = b.input[side];
        for (std::size_t i = 0; i < 2; ++i)
          if (coin()) child.unary[side][i] = b.unary[side][i];
      }
      if (draw(5) != 0) child.binary = b.binary;
    }
    if (coin()) {
      for (std::size_t side = 0; side < 2; ++side) {
        if (coin()) child.input[side] = random_input();
        for (int& op : child.unary[side])
          if (coin()) op = draw(unary_ops().size());
      }
      if (coin()) child.binary = draw(binary_ops().size());
    }
    return child;
  }
  static void sort(std::vector<Individual>& population) {
    std::ranges::stable_sort(population, std::greater<>{}, &Individual::fitness);
  }

  Individual judged(const Proxy& proxy, EvolveReport& report) {
    const std::string key = formula(proxy);
    if (o_.screening) {
      if (const auto known = known_.find(key); known != known_.end()) {
        ++report.known;
        return {proxy, known->second.fitness, known->second.rho};
      }
      if (!worth_it(proxy)) {
        ++report.rejected;
        known_[key] = {proxy, kInvalid, 0};
        return known_[key];
      }
    }
    ++report.evaluated;
    Individual one{proxy, kInvalid, 0};
    const Scores scores = all_scores(proxy);
    if (finite(scores)) {
      one.rho = correlation(scores, benchmark_, train_);
      if (one.rho != 0) one.fitness = std::abs(one.rho);
    }
    if (o_.screening) known_[key] = one;
    return one;
  }
  // On the first matrices alone: whether all is finite and a few plans differ.
  bool worth_it(const Proxy& proxy) const {
    const std::size_t few = std::min<std::size_t>(7, terms_.size());
    const Scores scores = scores_of(proxy, terms_.first(few), benchmark_.widths);
    if (!finite(scores)) return false;
    std::set<double> different;
    for (std::size_t i = 0; i < std::min(kScreened, train_.size()); ++i)
      different.insert(score_of(scores, std::span(benchmark_.plans[train_[i]]).first(few)));
    return different.size() > 1 && !different.contains(0) && !different.contains(-1);
  }
  Scores all_scores(const Proxy& proxy) const {
    Scores scores(terms_.size());
    parallel_rows(std::ssize(terms_), o_.threads, [&](int64_t begin, int64_t end) {
      const auto from = static_cast<std::size_t>(begin), n = static_cast<std::size_t>(end - begin);
      Scores part = scores_of(proxy, terms_.subspan(from, n), benchmark_.widths);
      std::move(part.begin(), part.end(), scores.begin() + begin);
    });
    return scores;
  }

  std::span<const MatrixTerms> terms_;
  const Benchmark& benchmark_;
  std::span<const std::size_t> train_;
  EvolveOptions o_;
  std::mt19937_64 rng_;
  std::map<std::string, Individual> known_;
};

}  // namespace

double spearman(std::span<const double> x, std::span<const double> y) {
  const auto a = ranks_of(x), b = ranks_of(y);
  const double mean = 0.5 * (static_cast<double>(x.size()) - 1);
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean) * (b[i] - mean);
    aa += (a[i] - mean) * (a[i] - mean);
    bb += (b[i] - mean) * (b[i] - mean);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

std::pair<double, double> spearman_interval(std::span<const double> x, std::span<const double> y,
                                            uint64_t seed, int resamples) {
  std::mt19937_64 rng(seed);
  std::vector<double> found;
  for (int r = 0; r < resamples; ++r) {
    std::vector<double> a, b;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t k = rng() % x.size();
      a.push_back(x[k]);
      b.push_back(y[k]);
    }
    found.push_back(spearman(a, b));
  }
  std::ranges::sort(found);
  const auto at = [&](double q) {
    return found[static_cast<std::size_t>(q * static_cast<double>(found.size() - 1))];
  };
  return {at(0.025), at(0.975)};
}

double correlation(const Scores& scores, const Benchmark& benchmark,
                   std::span<const std::size_t> places) {
  std::vector<double> predicted, measured;
  for (const std::size_t i : places) {
    predicted.push_back(score_of(scores, benchmark.plans[i]));
    measured.push_back(benchmark.kl[i]);
  }
  return spearman(predicted, measured);
}

Benchmark benchmark_from_json(const std::string& text) {
  Benchmark benchmark;
  try {
    const auto json = nlohmann::json::parse(text);
    json.at("matrices").get_to(benchmark.matrices);
    std::set<int> widths;
    for (const auto& plan : json.at("plans"))
      for (const char c : plan.at("bits").get<std::string>()) widths.insert(c - '0');
    for (const int w : widths)
      if (w != 2 && w != 3 && w != 4 && w != 8)
        throw Error(ExitCode::kUsage, "benchmark of plans (bits: expected 2, 3, 4 or 8, found " +
                                          std::to_string(w) + ")");
    benchmark.widths.assign(widths.begin(), widths.end());
    for (const auto& plan : json.at("plans")) {
      const auto bits = plan.at("bits").get<std::string>();
      if (bits.size() != benchmark.matrices.size())
        throw Error(ExitCode::kUsage, "benchmark of plans (bits: expected " +
                                          std::to_string(benchmark.matrices.size()) +
                                          " widths, found " + std::to_string(bits.size()) + ")");
      auto& row = benchmark.plans.emplace_back();
      for (const char c : bits)
        row.push_back(static_cast<int>(std::distance(widths.begin(), widths.find(c - '0'))));
      benchmark.kl.push_back(plan.at("kl"));
      benchmark.seeds.push_back(plan.at("seed"));
      if (!std::isfinite(benchmark.kl.back()))
        throw Error(ExitCode::kUsage, "benchmark of plans (kl: expected a number)");
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(ExitCode::kUsage, std::string("benchmark of plans (") + error.what() + ")");
  }
  return benchmark;
}

Benchmark only_widths(const Benchmark& all, const std::vector<int>& widths) {
  Benchmark some{all.matrices, all.widths, {}, {}, {}};
  for (std::size_t i = 0; i < all.plans.size(); ++i) {
    const bool among = std::ranges::all_of(all.plans[i], [&](int w) {
      return std::ranges::find(widths, all.widths[static_cast<std::size_t>(w)]) != widths.end();
    });
    if (!among) continue;
    some.plans.push_back(all.plans[i]);
    some.kl.push_back(all.kl[i]);
    some.seeds.push_back(all.seeds[i]);
  }
  return some;
}

EvolveReport evolve(std::span<const MatrixTerms> terms, const Benchmark& benchmark,
                    std::span<const std::size_t> train, const EvolveOptions& options,
                    const std::function<bool(int iteration, double best)>& report) {
  return Evolution(terms, benchmark, train, options).run(report);
}

}  // namespace crumb::quant::emq

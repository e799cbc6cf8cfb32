#include "quant/apq/joint.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <set>
#include <string>

#include "models/errors.h"
#include "quant/parallel.h"

namespace crumb::quant::apq {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPredictors = 4;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

uint8_t four_bits(const Space& space) {
  const auto found = std::ranges::find(space.widths, 4);
  if (found == space.widths.end())
    throw Error(ExitCode::kUsage,
                "limits are of the time at 4 bits (--widths: expected 4 among them)");
  return static_cast<uint8_t>(found - space.widths.begin());
}

class Joint {
 public:
  Joint(const models::SourceModel& source, const SubnetMeter& meter, const Setting& setting,
        const LatencyTable& table, const Method& method, const JointOptions& options,
        SampleStore* store, const ProgressFn& progress)
      : source_(source),
        meter_(meter),
        s_(setting),
        table_(table),
        method_(method),
        o_(options),
        store_(store),
        progress_(progress),
        four_(four_bits(setting.space)) {}

  JointReport run() {
    const Subnet whole = whole_subnet(s_.space, four_);
    const double least = ns(cheapest_subnet(s_.space, [&](const Subnet& one) { return ns(one); }));
    for (const double limit : o_.limits)
      if (least > limit * ns(whole))  // said before anything is measured
        throw Error(ExitCode::kUsage,
                    "no subnet meets the limit (expected at least " +
                        std::to_string(least / ns(whole)) + ", found " + std::to_string(limit) +
                        ")",
                    "a looser --limits, or smaller --widths");
    report_.whole = {whole, measured({whole}, "whole at 4 bits").front(), ns(whole)};
    for (const double limit : o_.limits)
      report_.limits.push_back({limit, limit * report_.whole.ns, {}, 0, {}, {}, 0, 0, 0});
    collect();
    transfer();
    for (int round = 0; round < o_.rounds; ++round) {
      const std::vector<Predictor> predictors = learn();
      for (LimitReport& limit : report_.limits) explore(predictors, limit, round);
    }
    compare();
    choose();
    return std::move(report_);
  }

 private:
  double ns(const Subnet& subnet) const { return latency_of(table_, s_.config, s_.space, subnet); }

  std::vector<double> measured(const std::vector<Subnet>& subnets, const char* stage) {
    const std::vector<double> kl =
        measure_subnets(meter_, s_, subnets, true, o_.threads, store_, stage, progress_);
    for (std::size_t i = 0; i < subnets.size(); ++i) {
      texts_.insert(text_of(subnets[i]));
      seen_.push_back({subnets[i], kl[i], ns(subnets[i])});
    }
    return kl;
  }

  void collect() {
    const auto start = Clock::now();
    std::vector<Subnet> whole, rounded;
    for (int64_t i = 0; i < o_.samples; ++i) whole.push_back(sample_at(s_.space, o_.seed, 2 * i));
    for (int64_t i = 0; i < o_.rounded; ++i)
      rounded.push_back(sample_at(s_.space, o_.seed, 2 * i + 1));
    // Widths do not matter to a float subnet.
    for (Subnet& subnet : whole)
      for (LayerChoice& layer : subnet) layer.bits.fill(four_);
    const auto kl =
        measure_subnets(meter_, s_, whole, false, o_.threads, store_, "float subnets", progress_);
    for (std::size_t i = 0; i < whole.size(); ++i)
      float_.push_back(example_of(s_.space, whole[i], false, kl[i]));
    measured(rounded, "rounded subnets");
    report_.sample_seconds = since(start);
  }

  void transfer() {
    const auto start = Clock::now();
    report_.transfer = measure_transfer(float_, rounded_examples(), o_.held_out, o_.transfer_sizes,
                                        o_.transfer_splits, o_.seed, o_.threads, o_.fit);
    report_.fit_seconds += since(start);
  }

  std::vector<Example> rounded_examples() const {
    std::vector<Example> examples;
    for (const Winner& one : seen_)
      examples.push_back(example_of(s_.space, one.subnet, true, one.kl));
    return examples;
  }

  // Several, of different seeds: what one of them is wrong about is not what evolution finds.
  std::vector<Predictor> learn() {
    const auto start = Clock::now();
    const std::vector<Example> rounded = rounded_examples();
    std::vector<std::optional<Predictor>> made(kPredictors);
    parallel_rows(kPredictors, o_.threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        made[static_cast<std::size_t>(i)] =
            train_predictor(float_, rounded, o_.seed + static_cast<uint64_t>(i), o_.fit);
    });
    std::vector<Predictor> predictors;
    for (auto& one : made) predictors.push_back(*std::move(one));
    report_.fit_seconds += since(start);
    return predictors;
  }

  // Evolution under one limit, and what it found measured.
  void explore(const std::vector<Predictor>& predictors, LimitReport& limit, int round) {
    const Score score = [&](std::span<const Subnet> subnets) {
      std::vector<Example> examples;
      for (const Subnet& subnet : subnets)
        examples.push_back({architecture_code(s_.space, subnet), width_code(s_.space, subnet), 0});
      std::vector<double> mean(subnets.size());
      for (const Predictor& predictor : predictors) {
        const std::vector<double> one = predictor.predict(examples);
        for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += one[i] / kPredictors;
      }
      return mean;
    };
    const Cost cost = [&](const Subnet& subnet) { return ns(subnet); };
    std::vector<Subnet> start;
    for (const Winner& one : best_seen(limit.ns, 10)) start.push_back(one.subnet);
    EvolveOptions how = o_.evolve;
    how.seed = o_.seed + static_cast<uint64_t>(round);
    auto began = Clock::now();
    const EvolveReport found =
        evolve(s_.space, score, cost, limit.ns, start, how, [&](int generation, double) {
          return !progress_ || progress_({"search", std::to_string(limit.limit).substr(0, 4),
                                          generation, how.generations});
        });
    report_.search_seconds += since(began);
    limit.evaluated = found.evaluated;
    limit.rejected = found.rejected;
    limit.crossed_survivors = found.crossed_survivors;
    limit.predicted = std::exp(-found.best.front().score);
    std::vector<Subnet> winners;
    for (const Found& one : found.best)
      if (std::ssize(winners) < o_.verified && !texts_.contains(text_of(one.subnet)))
        winners.push_back(one.subnet);
    began = Clock::now();
    measured(winners, "winners");
    report_.verify_seconds += since(began);
  }

  // Of all measured ones within a limit.
  std::vector<Winner> best_seen(double limit, std::size_t most) const {
    std::vector<Winner> fitting;
    for (const Winner& one : seen_)
      if (one.ns <= limit) fitting.push_back(one);
    std::ranges::stable_sort(fitting, {}, &Winner::kl);
    if (fitting.size() > most) fitting.resize(most);
    return fitting;
  }

  // The controls, none of which may win.
  void compare() {
    const SiteErrors errors = site_errors(source_, s_.space, method_, o_.threads, progress_);
    joint_seen_ = seen_.size();
    for (LimitReport& limit : report_.limits) {
      std::vector<Subnet> baselines;
      for (const Split& split : kSplits)
        baselines.push_back(sequential(s_, table_, errors, four_, limit.ns, split));
      auto kl = measured(baselines, "sequential");
      for (std::size_t i = 0; i < baselines.size(); ++i)
        limit.sequential.push_back({baselines[i], kl[i], ns(baselines[i])});
      const std::vector<Subnet> controls = random_controls(limit.ns);
      kl = measured(controls, "random");
      for (std::size_t i = 0; i < controls.size(); ++i)
        limit.random.push_back({controls[i], kl[i], ns(controls[i])});
    }
  }

  // Each the one nearest to the limit of some drawn within it.
  std::vector<Subnet> random_controls(double limit) const {
    constexpr int kTries = 20000, kFitting = 50;
    std::vector<Subnet> controls;
    std::mt19937_64 rng(o_.seed + 77);
    for (int i = 0; i < o_.controls; ++i) {
      std::optional<Winner> nearest;
      for (int tries = 0, fitting = 0; tries < kTries && fitting < kFitting; ++tries) {
        Winner one{random_subnet(s_.space, rng), 0, 0};
        one.ns = ns(one.subnet);
        if (one.ns > limit) continue;
        ++fitting;
        if (!nearest || one.ns > nearest->ns) nearest = std::move(one);
      }
      if (nearest) controls.push_back(std::move(nearest->subnet));
    }
    return controls;
  }

  void choose() {
    seen_.resize(joint_seen_);
    for (LimitReport& limit : report_.limits) limit.joint = best_seen(limit.ns, 1).front();
  }

  const models::SourceModel& source_;
  const SubnetMeter& meter_;
  const Setting& s_;
  const LatencyTable& table_;
  const Method& method_;
  const JointOptions& o_;
  SampleStore* store_;
  const ProgressFn& progress_;
  uint8_t four_;
  std::vector<Example> float_;
  std::vector<Winner> seen_;  // rounded subnets measured so far, not those of an earlier run only
  std::set<std::string> texts_;
  std::size_t joint_seen_ = 0;
  JointReport report_;
};

}  // namespace

JointReport search_jointly(const models::SourceModel& source, const SubnetMeter& meter,
                           const Setting& setting, const LatencyTable& table, const Method& method,
                           const JointOptions& options, SampleStore* store,
                           const ProgressFn& progress) {
  return Joint(source, meter, setting, table, method, options, store, progress).run();
}

}  // namespace crumb::quant::apq

#include "apps/bench_measure.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

#include "engine/rng.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kTokenSeed = 20260101;

double ns_since(Clock::time_point start) {
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

std::vector<int32_t> pseudo_random_ids(int64_t n, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i)
    ids.push_back(static_cast<int32_t>(uniform(kTokenSeed, static_cast<uint64_t>(i)) *
                                       static_cast<double>(vocab)));
  return ids;
}

uint64_t hash_of(std::span<const float> logits) {
  return XXH3_64bits(logits.data(), logits.size_bytes());
}

struct Repetition {
  double total_ns = 0, ttft_ns = 0;
  uint64_t hash = 0;
};

Repetition run_once(Session& session, const BenchTest& test, std::span<const int32_t> ids,
                    std::vector<double>& token_ns, Signals& signals) {
  session.truncate(test.depth);
  Repetition done;
  std::span<const float> logits;
  const auto start = Clock::now();
  if (test.prompt > 0) logits = session.forward(ids.first(static_cast<std::size_t>(test.prompt)));
  for (int64_t i = 0; i < test.generate; ++i) {
    const auto token_start = Clock::now();
    logits = session.forward(ids.subspan(static_cast<std::size_t>(test.prompt + i), 1));
    token_ns.push_back(ns_since(token_start));
    if (i == 0) done.ttft_ns = ns_since(start);
    if (signals.pending() != 0) throw Stopped{signals.pending()};
  }
  done.total_ns = ns_since(start);
  done.hash = hash_of(logits);
  return done;
}

}  // namespace

std::string name_of(const BenchTest& test) {
  std::string name;
  if (test.prompt > 0) name = fmt::format("pp{}", test.prompt);
  if (test.generate > 0) name += fmt::format("{}tg{}", name.empty() ? "" : "+", test.generate);
  if (test.depth > 0) name += fmt::format("@d{}", test.depth);
  return name;
}

BenchRow measure(Session& session, const Engine& engine, const BenchTest& test, int repetitions,
                 bool profile, Signals& signals) {
  BenchRow row;
  row.test = test;
  row.time = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  const auto ids =
      pseudo_random_ids(test.depth + test.prompt + test.generate, engine.config().vocab);
  const std::span<const int32_t> before =
      std::span(ids).first(static_cast<std::size_t>(test.depth));
  const std::span<const int32_t> timed =
      std::span(ids).subspan(static_cast<std::size_t>(test.depth));
  session.truncate(0);
  if (!before.empty()) session.forward(before);
  PhaseTimes times;
  for (int i = -1; i < repetitions; ++i) {
    if (i == 0 && profile) session.measure(&times);
    std::vector<double> token_ns;
    const Repetition done = run_once(session, test, timed, token_ns, signals);
    if (signals.pending() != 0) throw Stopped{signals.pending()};
    if (i < 0) {  // warm-up
      row.logits_hash = done.hash;
      continue;
    }
    if (done.hash != row.logits_hash)
      throw Error(
          ExitCode::kGate,
          fmt::format(
              "logits differ between repetitions (bench {}: expected hash {:016x}, found {:016x})",
              name_of(test), row.logits_hash, done.hash));
    row.samples_ns.push_back(done.total_ns);
    row.token_ns.insert(row.token_ns.end(), token_ns.begin(), token_ns.end());
    if (test.prompt > 0 && test.generate > 0) row.ttft_ns.push_back(done.ttft_ns);
  }
  session.measure(nullptr);
  const auto tokens = static_cast<double>(repetitions * (test.prompt + test.generate));
  for (std::size_t i = 0; profile && i < kPhaseNames.size(); ++i)
    row.phase_ns.push_back(times.seconds(i) * 1e9 / tokens);
  return row;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double rank = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(rank);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (values[high] - values[low]) * (rank - static_cast<double>(low));
}

Summary summarise(const std::vector<double>& values) {
  Summary s;
  if (values.empty()) return s;
  const auto n = static_cast<double>(values.size());
  for (const double v : values) s.average += v / n;
  double squares = 0;
  for (const double v : values) squares += (v - s.average) * (v - s.average);
  s.deviation = values.size() > 1 ? std::sqrt(squares / (n - 1)) : 0;
  s.median = quantile(values, 0.5);
  s.lowest = *std::min_element(values.begin(), values.end());
  s.highest = *std::max_element(values.begin(), values.end());
  s.spread = s.median > 0 ? (s.highest - s.lowest) / s.median : 0;
  return s;
}

std::vector<double> speeds(const BenchRow& row) {
  std::vector<double> result;
  for (const double ns : row.samples_ns)
    result.push_back(static_cast<double>(row.test.prompt + row.test.generate) * 1e9 / ns);
  return result;
}

}  // namespace crumb::apps

#include "apps/eval_efficiency.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "apps/bench_measure.h"
#include "apps/bench_report.h"
#include "apps/output.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPrompt = 512, kGenerate = 128;
constexpr int kRepetitions = 5;

std::optional<uint64_t> read_counter(const std::string& path) {
  try {
    const std::string text = read_text(path, 64);
    uint64_t value = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    if (result.ec != std::errc{}) return std::nullopt;
    return value;
  } catch (const Error&) {
    return std::nullopt;  // the caller says that it cannot be read
  }
}

}  // namespace

EnergyMeter::EnergyMeter(const std::string& root) {
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    // intel-rapl:0 is a package; intel-rapl:0:1 a part of one.
    if (!name.starts_with("intel-rapl:") || std::count(name.begin(), name.end(), ':') != 1)
      continue;
    const std::string path = (it->path() / "energy_uj").string();
    const auto range = read_counter((it->path() / "max_energy_range_uj").string());
    if (!range || !read_counter(path)) {
      problem_ = "not measured: " + path + " cannot be read";
      return;
    }
    counters_.push_back({path, *range, 0});
  }
  if (counters_.empty()) problem_ = "not measured: no intel-rapl packages in " + root;
  note_ = fmt::format("{} packages of {}", counters_.size(), root);
}

void EnergyMeter::start() {
  for (Counter& counter : counters_) counter.begin = read_counter(counter.path).value_or(0);
}

double EnergyMeter::joules() const {
  double sum = 0;
  for (const Counter& counter : counters_) {
    const uint64_t now = read_counter(counter.path).value_or(counter.begin);
    const uint64_t used =
        now >= counter.begin ? now - counter.begin : now + (counter.range - counter.begin);
    sum += static_cast<double>(used) * 1e-6;
  }
  return sum;
}

eval::Efficiency measure_efficiency(ModelArgs model, bool quiet, Signals& signals) {
  signals.watch();
  const auto engine = load_engine(model);
  SessionOptions options = session_options(model);
  options.context = std::min(engine->config().context, kPrompt + 1);
  const auto session = engine->make_session(options);
  const auto run = [&](BenchTest test) {
    if (!quiet) note("{}\n", name_of(test));
    const BenchRow row = measure(*session, *engine, test, kRepetitions, false, signals);
    return summarise(speeds(row)).median;
  };
  eval::Efficiency result;
  result.isa = engine->backend().name;
  result.cpu = cpu_name();
  result.threads = engine->thread_plan().threads;
  result.kv_bytes_per_token = session->kv_bytes() / options.context;
  result.prefill_tokens_per_s = run({std::min(kPrompt, options.context), 0, 0});
  EnergyMeter meter;
  meter.start();
  const int64_t generate = std::min(kGenerate, options.context);
  result.decode_tokens_per_s = run({0, generate, 0});
  if (meter.readable())
    result.joules_per_token =
        meter.joules() / static_cast<double>((kRepetitions + 1) * generate);  // and the warm-up
  result.energy_note = meter.note();
  result.peak_rss_bytes = peak_rss();
  return result;
}

}  // namespace crumb::apps

#include "apps/eval_efficiency.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/bench_measure.h"
#include "apps/bench_report.h"
#include "apps/output.h"
#include "bench/eval/energy.h"

namespace crumb::apps {
namespace {

constexpr int64_t kPrompt = 512, kGenerate = 128;
constexpr int kRepetitions = 5;

}  // namespace

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
  eval::EnergyMeter meter;
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

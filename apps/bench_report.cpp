#include "apps/bench_report.h"

#include <sys/resource.h>

#include <cstdlib>
#include <fstream>

#include "apps/build_info.h"

namespace crumb::apps {
namespace {

constexpr double kStableSpread = 0.05;

std::string csv_cell(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

}  // namespace

int64_t peak_rss() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string cpu_governor() {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  std::string name;
  return std::getline(file, name) ? name : "unknown";
}

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

double roofline(const BenchSetup& setup, const BenchRow& row) {
  if (row.test.generate == 0 || row.test.prompt > 0 || setup.bandwidth.best <= 0) return 0;
  const ModelInfo& info = setup.engine.info();
  const auto bytes = static_cast<double>(info.linear_bytes_per_token + info.head_bytes_per_token);
  return bytes * summarise(speeds(row)).median / setup.bandwidth.best;
}

Json to_json(const BenchSetup& setup, const BenchRow& row) {
  const ModelInfo& info = setup.engine.info();
  const auto& plan = setup.engine.thread_plan();
  const auto samples_ts = speeds(row);
  const Summary ns = summarise(row.samples_ns), ts = summarise(samples_ts);
  Json json = {{"schema", "crumb.bench/1"},
               {"build_commit", kBuildInfo.commit},
               {"build_number", 0},
               {"cpu_info", setup.cpu},
               {"gpu_info", ""},
               {"backends", "CPU"},
               {"model_filename", info.path},
               {"model_type", info.name + " " + info.weights},
               {"model_size", info.file_bytes},
               {"model_n_params", info.parameters},
               {"n_batch", setup.chunk},
               {"n_ubatch", setup.chunk},
               {"n_threads", plan.threads},
               {"cpu_mask", ""},
               {"cpu_strict", !plan.pus.empty()},
               {"poll", 0},
               {"type_k", setup.kv},
               {"type_v", setup.kv},
               {"use_mmap", setup.mmap},
               {"embeddings", false},
               {"n_prompt", row.test.prompt},
               {"n_gen", row.test.generate},
               {"n_depth", row.test.depth},
               {"test_time", row.time},
               {"avg_ns", ns.average},
               {"stddev_ns", ns.deviation},
               {"avg_ts", ts.average},
               {"stddev_ts", ts.deviation},
               {"samples_ns", row.samples_ns},
               {"samples_ts", samples_ts}};
  json["test"] = name_of(row.test);
  json["median_ts"] = ts.median;
  json["min_ts"] = ts.lowest;
  json["max_ts"] = ts.highest;
  json["spread"] = ts.spread;
  json["stable"] = ts.spread <= kStableSpread;
  json["ttft_ns"] = row.ttft_ns.empty() ? Json(nullptr) : Json(summarise(row.ttft_ns).median);
  json["itl_ns"] = {quantile(row.token_ns, 0.5), quantile(row.token_ns, 0.95),
                    quantile(row.token_ns, 0.99)};
  json["itl_samples_ns"] = row.token_ns;
  json["isa"] = setup.engine.backend().name;
  json["weights"] = info.weights;
  json["bpw"] = info.total_bpw;
  json["linear_bpw"] = info.linear_bpw;
  json["head_bits"] = info.head_bits;
  json["bytes_per_token"] = info.linear_bytes_per_token + info.head_bytes_per_token;
  json["mem_bw_gbps"] = setup.bandwidth.best / 1e9;
  json["mem_bw_median_gbps"] = setup.bandwidth.median / 1e9;
  json["roofline_pct"] = row.test.prompt > 0 ? Json(nullptr) : Json(roofline(setup, row) * 100);
  if (!row.phase_ns.empty()) {
    for (std::size_t i = 0; i < kPhaseNames.size(); ++i)
      json["phase_ns"][kPhaseNames[i]] = row.phase_ns[i];
  }
  json["logits_hash"] = fmt::format("{:016x}", row.logits_hash);
  json["pinned_pus"] = plan.pus;
  json["governor"] = setup.governor;
  json["cgroup_cpus"] = plan.cgroup_cpus;
  json["loadavg"] = setup.load_before;
  json["rss_peak_bytes"] = peak_rss();
  return json;
}

std::string markdown(const BenchSetup& setup, const std::vector<BenchRow>& rows) {
  const ModelInfo& info = setup.engine.info();
  const auto& plan = setup.engine.thread_plan();
  std::string out = fmt::format(
      "host: {} · {} threads {} · {} · load {:.2f} · memory read {:.1f} GB/s · build {} {}\n\n",
      setup.cpu, plan.threads,
      plan.pus.empty() ? "not pinned" : fmt::format("on {}", fmt::join(plan.pus, ",")),
      setup.engine.backend().name, setup.load_before, setup.bandwidth.best / 1e9, kBuildInfo.commit,
      kBuildInfo.compiler);
  Table table({"model", ">size", ">bpw", ">head", ">threads", "test", ">t/s median", ">min",
               ">spread", ">p95 ms/token", ">% of roofline"});
  double worst = 0;
  for (const auto& row : rows) {
    const Summary ts = summarise(speeds(row));
    worst = std::max(worst, ts.spread);
    const double share = roofline(setup, row);
    table.add(
        {info.name + " " + info.weights, human_bytes(static_cast<double>(info.file_bytes)),
         fmt::format("{:.2f}", info.linear_bpw), fmt::format("{:.1f}", info.head_bits),
         std::to_string(plan.threads), name_of(row.test), fmt::format("{:.1f}", ts.median),
         fmt::format("{:.1f}", ts.lowest), fmt::format("{:.1f} %", ts.spread * 100),
         row.token_ns.empty() ? "–" : fmt::format("{:.2f}", quantile(row.token_ns, 0.95) / 1e6),
         share > 0 ? fmt::format("{:.0f} %", share * 100) : "–"});
  }
  out += table.text();
  out += fmt::format("\nstable: {} (largest spread {:.1f} %) · KV {} · logits",
                     worst <= kStableSpread ? "yes" : "no", worst * 100, setup.kv);
  for (const auto& row : rows) out += fmt::format(" {:016x}", row.logits_hash);
  out += "\n";
  for (const auto& row : rows) {
    if (row.phase_ns.empty()) continue;
    out += fmt::format("{}: us a token on thread 0:", name_of(row.test));
    for (std::size_t i = 0; i < kPhaseNames.size(); ++i)
      out += fmt::format(" {} {:.1f}", kPhaseNames[i], row.phase_ns[i] / 1e3);
    out += "\n";
  }
  return out;
}

std::string csv(const BenchSetup& setup, const std::vector<BenchRow>& rows) {
  std::string out;
  for (const auto& row : rows) {
    const Json json = to_json(setup, row);
    std::string names, values;
    for (const auto& [name, value] : json.items()) {
      names += (names.empty() ? "" : ",") + name;
      values += (values.empty() ? "" : ",") + csv_cell(value);
    }
    if (out.empty()) out = names + "\n";
    out += values + "\n";
  }
  return out;
}

}  // namespace crumb::apps

// Rows of a benchmark as Markdown, JSON (llama-bench's field names, and ours) or CSV.
#pragma once
#include <string>
#include <vector>

#include "apps/bench_bandwidth.h"
#include "apps/bench_measure.h"
#include "apps/output.h"

namespace crumb::apps {

struct BenchSetup {
  const Engine& engine;
  std::string kv;  // "i8", ...
  int64_t context = 0, chunk = 0;
  bool mmap = false;
  Bandwidth bandwidth;
  std::string cpu, governor;
  double load_before = 0;  // one-minute load average before the first test
};
std::string cpu_name();      // of /proc/cpuinfo
int64_t peak_rss();          // bytes, of this process so far
std::string cpu_governor();  // of the first core, "unknown" if the system does not say
double load_average();

// Share of the measured bandwidth that decoding used: bytes read a token x tokens a second /
// bandwidth, 0 for tests that read more than one token at once. Bytes are those of the weights,
// without the cache.
double roofline(const BenchSetup& setup, const BenchRow& row);

Json to_json(const BenchSetup& setup, const BenchRow& row);  // one object a row
std::string markdown(const BenchSetup& setup, const std::vector<BenchRow>& rows);
std::string csv(const BenchSetup& setup, const std::vector<BenchRow>& rows);

}  // namespace crumb::apps

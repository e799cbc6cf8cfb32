#include "bench/eval/energy.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

#include "models/errors.h"
#include "models/text.h"

namespace crumb::eval {
namespace {

namespace fs = std::filesystem;

std::optional<uint64_t> read_counter(const std::string& path) {
  try {
    const std::string text = models::read_text(path, 64);
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
  note_ = std::to_string(counters_.size()) + " packages of " + root;
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

}  // namespace crumb::eval

// Energy that the processor's packages used.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace crumb::eval {

// Linux powercap (RAPL).
class EnergyMeter {
 public:
  // `root`: /sys/class/powercap. Finds intel-rapl:N/energy_uj of every package.
  explicit EnergyMeter(const std::string& root = "/sys/class/powercap");
  bool readable() const { return problem_.empty(); }
  // Where it reads, or why it cannot.
  const std::string& note() const { return readable() ? note_ : problem_; }
  void start();
  // Joules since start(); counters that passed their end once are allowed for.
  double joules() const;

 private:
  struct Counter {
    std::string path;
    uint64_t range = 0, begin = 0;
  };
  std::vector<Counter> counters_;
  std::string note_, problem_;
};

}  // namespace crumb::eval

// Speed, memory and energy of a model, the third dimension of an evaluation.
#pragma once
#include <optional>
#include <string>

#include "apps/model_args.h"
#include "apps/signals.h"
#include "bench/eval/report.h"

namespace crumb::apps {

// Loads the model, measures pp512 and tg128 as `crumb bench` (medians of five) and the energy of
// the packages while it decodes. Call it first: the peak of memory is the process's.
eval::Efficiency measure_efficiency(ModelArgs model, bool quiet, Signals& signals);

// Energy counters of the processor's packages (Linux powercap, RAPL).
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

}  // namespace crumb::apps

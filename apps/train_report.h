// What `crumb train` says while it works: a line a report, JSONL, and on a terminal the step at
// hand.
#pragma once
#include <chrono>
#include <functional>
#include <mutex>
#include <string>

#include "apps/signals.h"
#include "engine/progress.h"
#include "quant/train/train_job.h"

namespace crumb::apps {

class TrainReporter {
 public:
  TrainReporter(bool enabled, bool json, int64_t weights, Signals& signals);
  ~TrainReporter();
  TrainReporter(const TrainReporter&) = delete;
  TrainReporter& operator=(const TrainReporter&) = delete;

  // Of a step's blocks, from any thread; false once a signal came.
  bool within(const Progress& progress);
  void after(const quant::train::TrainProgress& progress);
  void resume(int64_t step) { step_ = step; }
  bool stopped();

 private:
  using Clock = std::chrono::steady_clock;
  void clear();
  void draw(const Progress& progress);

  const bool enabled_, json_, terminal_;
  const double weights_;
  std::mutex mutex_;
  Signals& signals_;
  bool drawn_ = false;
  Clock::time_point last_;
  int64_t step_ = 0, steps_ = 0;
  std::string tail_;  // of the last step
};

}  // namespace crumb::apps

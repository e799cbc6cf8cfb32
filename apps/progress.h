// Draws how far a job is, on stderr.
#pragma once
#include <chrono>
#include <string>

#include "apps/signals.h"
#include "engine/progress.h"

namespace crumb::apps {

// On a terminal one line redrawn at most ten times a second; elsewhere a line every ten seconds.
class ProgressBar {
 public:
  // `enabled` false draws nothing (-q) but still notices signals.
  ProgressBar(bool enabled, Signals& signals);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Returns false once a signal came.
  bool update(const Progress& progress);
  ProgressFn function();
  void clear();  // removes the drawn line

 private:
  using Clock = std::chrono::steady_clock;
  bool enabled_, terminal_, drawn_ = false;
  Signals& signals_;
  std::string stage_;
  Clock::time_point stage_start_, last_;
};

// Calls job(progress function); if a signal stopped it, throws Stopped with its number.
template <class Job>
auto with_progress(bool enabled, Signals& signals, Job job) {
  signals.watch();
  try {
    ProgressBar bar(enabled, signals);
    return job(bar.function());
  } catch (const Interrupted&) {
    throw Stopped{signals.pending()};
  }
}

}  // namespace crumb::apps

// Where the time of a step goes, as thread 0 sees it.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>

namespace crumb {

enum class Phase : uint8_t { kPrepare, kMatmul, kEpilogue, kAttention, kHead, kWait };
inline constexpr std::array kPhaseNames = {"prepare",   "matmul", "epilogue",
                                           "attention", "head",   "wait"};

class PhaseTimes {
 public:
  void start() { last_ = Clock::now(); }
  // What passed since the last call belongs to `phase`.
  void lap(Phase phase) {
    const Clock::time_point now = Clock::now();
    seconds_[static_cast<std::size_t>(phase)] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  double seconds(std::size_t phase) const { return seconds_[phase]; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_{};
  std::array<double, kPhaseNames.size()> seconds_{};
};

}  // namespace crumb

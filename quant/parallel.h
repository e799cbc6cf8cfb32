// Rows divided over threads. Every row is worked on alone, so results do not depend on the
// division.
#pragma once
#include <algorithm>
#include <cstdint>
#include <future>
#include <thread>
#include <vector>

namespace crumb::quant {

// 0 means all hardware threads.
inline int resolve_threads(int threads) {
  return threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Calls work(begin, end) for contiguous parts of [0, rows). Of several exceptions the one of the
// lowest rows comes out; all parts have ended by then.
template <class Work>
void parallel_rows(int64_t rows, int threads, const Work& work) {
  const int64_t parts =
      std::clamp<int64_t>(resolve_threads(threads), 1, std::max<int64_t>(rows, 1));
  std::vector<std::future<void>> running;
  for (int64_t part = 1; part < parts; ++part)
    running.push_back(std::async(std::launch::async, [&work, part, parts, rows] {
      work(part * rows / parts, (part + 1) * rows / parts);
    }));
  work(0, rows / parts);
  for (auto& one : running) one.get();
}

}  // namespace crumb::quant

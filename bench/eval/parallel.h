// Work on rows of logits beside the engine's own threads, which rest meanwhile.
#pragma once
#include <cstdint>
#include <future>
#include <vector>

namespace crumb::eval {

// work(i) for every i in [0, n), divided into one run of neighbours a thread. What it throws comes
// out here, after all have ended.
template <class Work>
void in_parallel(int64_t n, int threads, const Work& work) {
  const auto part = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work(i);
  };
  std::vector<std::future<void>> others;
  for (int64_t t = 1; t < threads; ++t)
    others.push_back(std::async(std::launch::async, part, t * n / threads, (t + 1) * n / threads));
  part(0, n / threads);
  for (auto& other : others) other.get();
}

}  // namespace crumb::eval

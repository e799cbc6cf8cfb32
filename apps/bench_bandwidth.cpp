#include "apps/bench_bandwidth.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <new>

#include "engine/threads/pool.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMinimumBytes = int64_t{256} << 20;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kLineWords = 8;  // 64 bytes

// An anonymous mapping aligned to huge pages.
class HugeBuffer {
 public:
  explicit HugeBuffer(int64_t bytes) : mapped_(static_cast<std::size_t>(bytes + kHugePage)) {
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(base_);
    const auto aligned = (address + kHugePage - 1) / kHugePage * kHugePage;
    data_ = reinterpret_cast<uint64_t*>(aligned);
    madvise(data_, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
  }
  ~HugeBuffer() { munmap(base_, mapped_); }
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  uint64_t* words() { return data_; }

 private:
  std::size_t mapped_;
  void* base_ = nullptr;
  uint64_t* data_ = nullptr;
};

// Eight sums at once, so that no addition waits for the one before.
uint64_t sum_lines(const uint64_t* words, int64_t lines) {
  uint64_t sums[kLineWords] = {};
  for (int64_t i = 0; i < lines; ++i)
    for (int64_t j = 0; j < kLineWords; ++j) sums[j] += words[i * kLineWords + j];
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

Bandwidth measure_bandwidth(const threads::Plan& plan, int64_t minimum_bytes, int passes) {
  Bandwidth result;
  const int64_t wanted = std::max(minimum_bytes, kMinimumBytes);
  result.buffer_bytes = (wanted + kHugePage - 1) / kHugePage * kHugePage;
  HugeBuffer buffer(result.buffer_bytes);
  threads::Pool pool(plan);
  const int64_t lines = result.buffer_bytes / 64;
  struct alignas(64) Cell {
    uint64_t sum = 0;
  };
  std::vector<Cell> cells(static_cast<std::size_t>(pool.size()));
  pool.run([&](const threads::Worker& worker) {
    const auto mine = worker.slice(lines);
    for (int64_t i = mine.begin * kLineWords; i < mine.end * kLineWords; ++i)
      buffer.words()[i] = static_cast<uint64_t>(i);
  });
  for (int pass = 0; pass <= passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](const threads::Worker& worker) {
      const auto mine = worker.slice(lines);
      cells[static_cast<std::size_t>(worker.index())].sum +=
          sum_lines(buffer.words() + mine.begin * kLineWords, mine.end - mine.begin);
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    // The first pass warms the page tables.
    if (pass > 0) result.passes.push_back(static_cast<double>(result.buffer_bytes) / seconds);
  }
  for (const auto& cell : cells) result.sum += cell.sum;
  std::vector<double> sorted = result.passes;
  std::sort(sorted.begin(), sorted.end());
  result.best = sorted.back();
  result.median = sorted[sorted.size() / 2];
  return result;
}

}  // namespace crumb::apps

// Persistent pinned threads that run one function together (SPMD), with a spin barrier between
// phases.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "engine/threads/topology.h"
#include "kernels/backend.h"

namespace crumb::threads {

// Spins for a short while, then sleeps on a futex. All `count` threads must call wait().
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}
  void wait() noexcept;

 private:
  int count_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

// What one thread of a running job knows of itself.
class Worker {
 public:
  Worker(int index, int count, Barrier* barrier)
      : index_(index), count_(count), barrier_(barrier) {}
  int index() const { return index_; }
  int count() const { return count_; }
  // All threads of the job meet here; what one wrote before, all see after.
  void sync() const noexcept {
    if (count_ > 1) barrier_->wait();
  }
  // This thread's part of [0, n), contiguous, the same for equal n.
  kernels::Range slice(int64_t n) const { return {n * index_ / count_, n * (index_ + 1) / count_}; }

 private:
  int index_, count_;
  Barrier* barrier_;
};

class Pool {
 public:
  explicit Pool(const Plan& plan);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls job(const Worker&) on every thread and returns when all are done. The caller is thread 0;
  // it is pinned like the others for the duration. One job at a time; the job must not throw.
  template <class Job>
  void run(Job&& job) {
    using Plain = std::remove_reference_t<Job>;
    run_erased([](void* context, const Worker& worker) { (*static_cast<Plain*>(context))(worker); },
               const_cast<void*>(static_cast<const void*>(&job)));
  }

 private:
  using Function = void (*)(void*, const Worker&);
  void run_erased(Function function, void* context);
  void serve(int index);

  Plan plan_;
  Barrier barrier_;
  Function function_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<int> running_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace crumb::threads

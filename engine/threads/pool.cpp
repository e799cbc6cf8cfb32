#include "engine/threads/pool.h"

#include <pthread.h>
#include <sched.h>

#include <chrono>

namespace crumb::threads {
namespace {

// About 50 us on the machines we know: longer than any phase lasts on an even split, short enough
// that an idle thread costs nothing.
constexpr int kSpins = 2000;

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`: spins, then sleeps.
template <class T>
void wait_change(const std::atomic<T>& value, T old) noexcept {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

// Pinning is a wish: a machine that refuses it still computes the same.
void pin_to(int pu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(pu), &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

// Pins the calling thread and gives it its former mask back: threads it makes later must not
// inherit ours.
class ScopedPin {
 public:
  explicit ScopedPin(int pu) {
    valid_ = pthread_getaffinity_np(pthread_self(), sizeof(former_), &former_) == 0;
    if (valid_) pin_to(pu);
  }
  ~ScopedPin() {
    if (valid_) pthread_setaffinity_np(pthread_self(), sizeof(former_), &former_);
  }
  ScopedPin(const ScopedPin&) = delete;
  ScopedPin& operator=(const ScopedPin&) = delete;

 private:
  cpu_set_t former_;
  bool valid_ = false;
};

}  // namespace

void Barrier::wait() noexcept {
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
    return;
  }
  wait_change(phase_, phase);
}

Pool::Pool(const Plan& plan) : plan_(plan), barrier_(plan.threads) {
  threads_.reserve(static_cast<std::size_t>(plan.threads));
  for (int i = 1; i < plan.threads; ++i) threads_.emplace_back([this, i] { serve(i); });
}

Pool::~Pool() {
  stopping_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (auto& t : threads_) t.join();
}

void Pool::serve(int index) {
  if (!plan_.pus.empty()) pin_to(plan_.pus[static_cast<std::size_t>(index)]);
  const Worker worker(index, plan_.threads, &barrier_);
  for (uint32_t seen = 0;;) {
    wait_change(generation_, seen);
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    function_(context_, worker);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_all();
  }
}

void Pool::run_erased(Function function, void* context) {
  function_ = function;
  context_ = context;
  running_.store(plan_.threads - 1, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  const Worker worker(0, plan_.threads, &barrier_);
  if (plan_.pus.empty()) {
    function(context, worker);
  } else {
    const ScopedPin pin(plan_.pus[0]);
    function(context, worker);
  }
  for (int left = running_.load(std::memory_order_acquire); left != 0;
       left = running_.load(std::memory_order_acquire))
    wait_change(running_, left);
}

}  // namespace crumb::threads

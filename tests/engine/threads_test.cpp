#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <numeric>
#include <thread>

#include "engine/threads/claims.h"
#include "engine/threads/pool.h"
#include "engine/threads/topology.h"
#include "models/errors.h"

namespace crumb::threads {
namespace {

Plan unpinned(int threads) {
  Plan plan;
  plan.threads = threads;
  return plan;
}

TEST(Pool, EveryThreadRunsEveryJobOnce) {
  for (const int threads : {1, 2, 3, 4}) {
    Pool pool(unpinned(threads));
    ASSERT_EQ(pool.size(), threads);
    std::vector<int> runs(static_cast<std::size_t>(threads));
    for (int job = 0; job < 200; ++job)
      pool.run([&](const Worker& w) { ++runs[static_cast<std::size_t>(w.index())]; });
    EXPECT_EQ(runs, std::vector<int>(static_cast<std::size_t>(threads), 200));
  }
}

TEST(Pool, SyncSeparatesPhases) {
  constexpr int kThreads = 4, kPhases = 300;
  Pool pool(unpinned(kThreads));
  // Each phase every thread writes its cell and reads all cells of the phase before.
  std::vector<std::array<int, kThreads>> cells(kPhases + 1);
  std::atomic<int> wrong{0};
  pool.run([&](const Worker& w) {
    for (std::size_t phase = 1; phase <= kPhases; ++phase) {
      const auto& before = cells[phase - 1];
      if (std::accumulate(before.begin(), before.end(), 0) !=
          static_cast<int>(phase - 1) * kThreads)
        ++wrong;
      cells[phase][static_cast<std::size_t>(w.index())] = static_cast<int>(phase);
      w.sync();
    }
  });
  EXPECT_EQ(wrong.load(), 0);
}

TEST(Pool, SlicesCoverEverythingOnce) {
  for (const int count : {1, 2, 3, 7})
    for (const int64_t n : {0, 1, 2, 18, 100}) {
      int64_t next = 0;
      for (int i = 0; i < count; ++i) {
        const auto range = Worker(i, count, nullptr).slice(n);
        EXPECT_EQ(range.begin, next);
        next = range.end;
      }
      EXPECT_EQ(next, n);
    }
}

TEST(Pool, IdleThreadsSleep) {
  Pool pool(unpinned(3));
  pool.run([](const Worker& w) { w.sync(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto cpu = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double before = cpu();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(cpu() - before, 0.03) << "idle threads burn CPU";
}

TEST(Pool, CallerGetsItsMaskBack) {
  cpu_set_t before, after;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  Plan plan = make_plan(1, true);
  Pool pool(plan);
  pool.run([&](const Worker&) {
    cpu_set_t inside;
    sched_getaffinity(0, sizeof(inside), &inside);
    if (!plan.pus.empty()) {
      EXPECT_EQ(CPU_COUNT(&inside), 1);
    }
  });
  ASSERT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

TEST(Topology, PlansThisMachine) {
  const Plan plan = make_plan(0, true);
  EXPECT_GE(plan.threads, 1);
  EXPECT_LE(plan.threads, plan.allowed_pus);
  EXPECT_EQ(plan.pus.size(), static_cast<std::size_t>(plan.threads));
  EXPECT_GE(plan.reasons.size(), 4u);
  const Plan many = make_plan(plan.allowed_pus + 1, true);
  EXPECT_EQ(many.threads, plan.allowed_pus + 1);
  EXPECT_TRUE(many.pus.empty());
  EXPECT_NE(many.reasons.back().find("more threads than allowed"), std::string::npos);
  EXPECT_THROW(make_plan(kMaxThreads + 1, true), Error);
  EXPECT_THROW(make_plan(-1, true), Error);
}

TEST(Topology, RespectsTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "one CPU: nothing to mask";
  int last = 0;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(static_cast<unsigned>(i), &before)) last = i;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<unsigned>(last), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  const Plan plan = make_plan(0, true);
  sched_setaffinity(0, sizeof(before), &before);
  EXPECT_EQ(plan.allowed_pus, 1);
  EXPECT_EQ(plan.pus, std::vector<int>{last});
}

TEST(Claims, FreeCoresComeFirst) {
  const auto odd = [](int pu) { return pu % 2 == 1; };
  EXPECT_EQ(choose_pus({0, 1, 2, 3}, 2, odd).pus, (std::vector<int>{1, 3}));
  const Chosen some = choose_pus({0, 1, 2, 3}, 3, odd);
  EXPECT_EQ(some.pus, (std::vector<int>{1, 3, 0}));
  EXPECT_EQ(some.shared, 1);
  EXPECT_EQ(choose_pus({0, 1}, 2, [](int) { return true; }).shared, 0);
}

// What another process holds; 0: free, as its exit code.
int taken_elsewhere(const std::string& path, int pu) {
  const pid_t child = fork();
  if (child == 0) _exit(Claims(path).take(pu) ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

TEST(Claims, HoldAgainstOtherProcessesUntilLetGo) {
  const std::string path = testing::TempDir() + "crumb_claims_" + std::to_string(getpid());
  {
    const Claims claims(path);
    EXPECT_TRUE(claims.take(3));
    EXPECT_TRUE(claims.take(3)) << "a process does not stand in its own way";
    EXPECT_EQ(taken_elsewhere(path, 3), 1);
    EXPECT_EQ(taken_elsewhere(path, 2), 0);
  }
  EXPECT_EQ(taken_elsewhere(path, 3), 0);
  unlink(path.c_str());
  EXPECT_TRUE(Claims("/nonexistent/folder").take(0)) << "no file: every core counts as free";
}

class SyntheticTopology : public testing::Test {
 protected:
  void use(const char* description) { setenv("HWLOC_SYNTHETIC", description, 1); }
  void TearDown() override { unsetenv("HWLOC_SYNTHETIC"); }
};

TEST_F(SyntheticTopology, OneThreadPerPhysicalCore) {
  use("numa:2 core:4 pu:2");
  const Plan plan = make_plan(0, true);
  EXPECT_EQ(plan.threads, 8);
  EXPECT_EQ(plan.cores, 8);
  EXPECT_EQ(plan.allowed_pus, 16);
  EXPECT_EQ(plan.numa_nodes, 2);
  EXPECT_TRUE(plan.pus.empty()) << "a foreign topology must not be pinned to";
  EXPECT_EQ(make_plan(16, true).threads, 16);
}

}  // namespace
}  // namespace crumb::threads

// Which cores to use and why: hwloc topology clipped to the affinity mask and the cgroup CPU quota.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace crumb::threads {

struct Plan {
  int threads = 1;
  std::vector<int> pus;  // OS index of the PU each thread is pinned to; empty: not pinned
  // For humans, one fact a line: "2 physical cores, 2 PUs, 1 NUMA node", "affinity mask allows 2
  // PUs", "cgroup quota: none", "chosen: 2 threads, one per physical core of the fastest kind".
  std::vector<std::string> reasons;
  int cores = 0, allowed_pus = 0, numa_nodes = 0;
  double cgroup_cpus = 0;  // 0: no quota
};

inline constexpr int kMaxThreads = 256;

// `wanted` = 0: one thread per allowed physical core of the fastest kind, at most the quota
// (rounded up). Cores that no other crumb process is pinned to are taken first (claims.h). More
// threads than allowed PUs run unpinned, and `reasons` says so; beyond
// kMaxThreads is an Error (kUsage).
Plan make_plan(int wanted, bool pin);

}  // namespace crumb::threads

#include "engine/threads/topology.h"

#include <hwloc.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <sstream>

#include "engine/threads/claims.h"
#include "models/errors.h"

namespace crumb::threads {
namespace {

struct TopologyDeleter {
  void operator()(hwloc_topology* t) const { hwloc_topology_destroy(t); }
};
using Topology = std::unique_ptr<hwloc_topology, TopologyDeleter>;
struct BitmapDeleter {
  void operator()(hwloc_bitmap_s* b) const { hwloc_bitmap_free(b); }
};
using Bitmap = std::unique_ptr<hwloc_bitmap_s, BitmapDeleter>;

Topology load_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0)
    throw Error(ExitCode::kInternal, "hwloc: cannot create a topology");
  Topology topology(raw);
  // Caches, devices and bridges decide nothing here and cost start-up time.
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_NONE);
  hwloc_topology_set_icache_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_NONE);
  if (hwloc_topology_load(raw) != 0)
    throw Error(ExitCode::kInternal, "hwloc: cannot read the machine's topology");
  return topology;
}

// CPUs' worth of time the cgroup allows, 0 without a limit. v2: "QUOTA PERIOD" or "max PERIOD" in
// cpu.max of the group and every parent; v1: the two cfs files.
double read_quota_v2(std::string path) {
  double least = 0;
  for (;;) {
    std::ifstream file("/sys/fs/cgroup" + path + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0) {
      std::istringstream text(quota);
      double q = 0;
      if (text >> q && q > 0 && (least == 0 || q / period < least)) least = q / period;
    }
    const auto slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return least;
    path.resize(slash);
  }
}

double cgroup_cpus() {
  std::ifstream groups("/proc/self/cgroup");
  double least = 0;
  for (std::string line; std::getline(groups, line);) {
    const auto second = line.find(':', line.find(':') + 1);
    if (second == std::string::npos) continue;
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    if (line.rfind("0::", 0) == 0) least = read_quota_v2(path);
  }
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
      v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (least == 0 && v1_quota >> quota && v1_period >> period && quota > 0 && period > 0)
    least = quota / period;
  return least;
}

// The PUs of the most efficient-for-speed kind (hwloc orders kinds by rising performance); all if
// one kind.
Bitmap fastest_kind(hwloc_topology_t topology, hwloc_const_bitmap_t allowed,
                    std::vector<std::string>& reasons) {
  Bitmap set(hwloc_bitmap_dup(allowed));
  const int kinds = hwloc_cpukinds_get_nr(topology, 0);
  if (kinds <= 1) return set;
  for (int kind = kinds - 1; kind >= 0; --kind) {
    Bitmap of_kind(hwloc_bitmap_alloc());
    int efficiency = 0;
    if (hwloc_cpukinds_get_info(topology, static_cast<unsigned>(kind), of_kind.get(), &efficiency,
                                nullptr, nullptr, 0) != 0 ||
        efficiency < 0)
      continue;
    hwloc_bitmap_and(of_kind.get(), of_kind.get(), allowed);
    if (hwloc_bitmap_iszero(of_kind.get())) continue;
    reasons.push_back(std::to_string(kinds) + " kinds of cores: the fastest kind has " +
                      std::to_string(hwloc_bitmap_weight(of_kind.get())) + " allowed PUs");
    return of_kind;
  }
  return set;
}

// One PU of each core that has an allowed one; then, if more are wanted, the other hardware
// threads.
std::vector<int> order_pus(hwloc_topology_t topology, hwloc_const_bitmap_t first,
                           hwloc_const_bitmap_t allowed, int& cores) {
  std::vector<int> chosen;
  std::vector<int> rest;
  cores = 0;
  const int core_count = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
  for (int i = 0; i < core_count; ++i) {
    const hwloc_obj_t core =
        hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, static_cast<unsigned>(i));
    bool taken = false;
    for (int pu = hwloc_bitmap_first(core->cpuset); pu >= 0;
         pu = hwloc_bitmap_next(core->cpuset, pu)) {
      if (!hwloc_bitmap_isset(allowed, static_cast<unsigned>(pu))) continue;
      if (!taken && hwloc_bitmap_isset(first, static_cast<unsigned>(pu))) {
        chosen.push_back(pu);
        taken = true;
        ++cores;
      } else {
        rest.push_back(pu);
      }
    }
  }
  if (core_count <= 0) {  // a machine that does not tell its cores: every PU counts as one
    for (int pu = hwloc_bitmap_first(allowed); pu >= 0; pu = hwloc_bitmap_next(allowed, pu))
      chosen.push_back(pu);
    cores = static_cast<int>(chosen.size());
  }
  chosen.insert(chosen.end(), rest.begin(), rest.end());
  return chosen;
}

std::string count(int n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

std::string decimal(double x) {
  std::ostringstream out;
  out.precision(3);
  out << x;
  return out.str();
}

}  // namespace

Plan make_plan(int wanted, bool pin) {
  const Topology topology = load_topology();
  Plan plan;
  const bool real = hwloc_topology_is_thissystem(topology.get()) != 0;
  Bitmap allowed(hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(topology.get())));
  plan.numa_nodes = hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_NUMANODE);
  plan.reasons.push_back(
      count(hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_CORE), "physical core") + ", " +
      count(hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_PU), "PU") + ", " +
      count(plan.numa_nodes, "NUMA node"));
  if (real) {
    Bitmap mask(hwloc_bitmap_alloc());
    if (hwloc_get_cpubind(topology.get(), mask.get(), HWLOC_CPUBIND_PROCESS) == 0)
      hwloc_bitmap_and(allowed.get(), allowed.get(), mask.get());
    plan.cgroup_cpus = cgroup_cpus();
  }
  plan.allowed_pus = hwloc_bitmap_weight(allowed.get());
  if (plan.allowed_pus <= 0) throw Error(ExitCode::kInternal, "no CPU is allowed to this process");
  plan.reasons.push_back("affinity mask allows " + count(plan.allowed_pus, "PU"));
  plan.reasons.push_back(plan.cgroup_cpus > 0
                             ? "cgroup quota: " + decimal(plan.cgroup_cpus) + " CPUs"
                             : "cgroup quota: none");

  const Bitmap fastest = fastest_kind(topology.get(), allowed.get(), plan.reasons);
  const std::vector<int> pus = order_pus(topology.get(), fastest.get(), allowed.get(), plan.cores);
  int automatic = plan.cores;
  if (plan.cgroup_cpus > 0)
    automatic = std::min(automatic, std::max(1, static_cast<int>(std::ceil(plan.cgroup_cpus))));
  if (wanted < 0 || wanted > kMaxThreads)
    throw Error(ExitCode::kUsage, "bad number of threads (--threads: expected 1.." +
                                      std::to_string(kMaxThreads) + ", found " +
                                      std::to_string(wanted) + ")");
  plan.threads = wanted > 0 ? wanted : automatic;
  plan.reasons.push_back(
      "chosen: " + count(plan.threads, "thread") +
      (wanted > 0 ? ", as asked" : ", one per physical core of the fastest kind"));
  if (!pin) {
    plan.reasons.emplace_back("pinning: off, as asked");
  } else if (plan.threads > plan.allowed_pus) {
    plan.reasons.emplace_back("pinning: off, more threads than allowed PUs (slow)");
  } else if (!real) {
    plan.reasons.emplace_back("pinning: off, the topology is not this machine's");
  } else {
    // For the life of the process: closing the file would let go of what other plans have taken.
    static const Claims claims(claims_path());
    const auto candidates = std::max(plan.threads, plan.cores);
    Chosen chosen = choose_pus({pus.begin(), pus.begin() + candidates}, plan.threads,
                               [](int pu) { return claims.take(pu); });
    plan.pus = std::move(chosen.pus);
    if (chosen.shared > 0)
      plan.reasons.push_back("shared with other crumb processes: " + count(chosen.shared, "PU"));
    std::string list;
    for (const int pu : plan.pus) list += (list.empty() ? "" : ",") + std::to_string(pu);
    plan.reasons.push_back("pinned to PU " + list);
  }
  return plan;
}

}  // namespace crumb::threads

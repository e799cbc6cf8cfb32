// The speed at which this machine's memory can be read: the roofline that decoding is held against.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/threads/topology.h"

namespace crumb::apps {

struct Bandwidth {
  double best = 0, median = 0;  // bytes per second over the passes
  std::vector<double> passes;
  int64_t buffer_bytes = 0;
  uint64_t sum = 0;  // what was read, so that reading cannot be left out
};

// Every thread of the plan, pinned as the plan says, sums its own part of one buffer of at least
// `minimum_bytes` (and of 256 MiB), in huge pages where the system gives them, first touched by its
// reader. Each pass reads the whole buffer once. Throws std::bad_alloc.
Bandwidth measure_bandwidth(const threads::Plan& plan, int64_t minimum_bytes, int passes);

}  // namespace crumb::apps

// What every matrix of a model's blocks costs in decoding, at every width the kernels have: the
// table that widths are chosen by under a budget of time (quant/train/learned_widths.h).
#pragma once
#include <array>
#include <string>
#include <vector>

#include "apps/bench_measure.h"
#include "apps/output.h"
#include "engine/threads/topology.h"
#include "kernels/backend.h"
#include "models/config.h"

namespace crumb::apps {

inline constexpr std::array kLatencyWidths = {2, 3, 4, 8};

struct LatencyRow {
  std::string name;
  int64_t N = 0, K = 0;
  std::array<double, kLatencyWidths.size()> ns{};  // of one token
};

// Thread 0's time in each matrix [N, K] while all threads multiply one token by all matrices of
// the blocks in their order, so that weights come from where they come in decoding: codes are
// random, one scale a row (group 0) or a group of columns. Medians of `passes`, then means over
// matrices of one shape. Needs memory for the blocks at 8 bits. Throws Stopped.
std::vector<LatencyRow> measure_latency(const models::ModelConfig& config, int64_t group,
                                        const threads::Plan& plan, const kernels::Backend& backend,
                                        int passes, Signals& signals);

// Nanoseconds of the blocks' matrices at these widths, in the order of the rows; 0 for a width
// that is not in the table.
double predicted_ns(const std::vector<LatencyRow>& rows, const std::vector<int>& bits);

// {"schema", "costs": {"matrix": [ns at 2, 3, 4, 8]}, "budget": ns of all at 4 bits, ..}.
Json latency_json(const std::vector<LatencyRow>& rows);

// Of every shape that matrices have in the model or, with `pruned`, in what crumb search apq may
// make of it (quant/apq/space.h): [{"rows", "cols", "ns": [4]}]. Shapes that the model does not
// have are measured in models all of whose layers are cut alike.
Json shape_latencies(const models::ModelConfig& config, const std::vector<LatencyRow>& rows,
                     bool pruned, int64_t group, const threads::Plan& plan,
                     const kernels::Backend& backend, int passes, Signals& signals);

}  // namespace crumb::apps

// The processes that mpirun started, on one machine or several, as an AllReduce.
#pragma once
#include <memory>

#include "quant/train/all_reduce.h"

namespace crumb::quant::train {

// Null in a process that no mpirun started. Call once, before any thread exists. Destroy it when
// all members are done; a member that ends by an error ends all (mpirun sees to it). Two files
// implement it, chosen by -DCRUMB_MPI: without MPI it throws Error(kUsage) for one of several.
std::unique_ptr<AllReduce> join_process_group();

}  // namespace crumb::quant::train

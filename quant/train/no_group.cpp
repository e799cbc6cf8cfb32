#include <cstdlib>
#include <string>

#include "models/errors.h"
#include "quant/train/process_group.h"

namespace crumb::quant::train {

std::unique_ptr<AllReduce> join_process_group() {
  // As mpi_group.cpp looks for mpirun.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (const char* size = std::getenv(name); size != nullptr && std::string(size) != "1")
      throw Error(
          ExitCode::kUsage,
          "built without MPI (mpirun: expected one process, found " + std::string(size) + ")",
          "build with -DCRUMB_MPI=ON");
  return nullptr;
}

}  // namespace crumb::quant::train

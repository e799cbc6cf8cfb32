#include "quant/train/process_group.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <exception>

#include "models/errors.h"

namespace crumb::quant::train {
namespace {

// MPI counts in int, and large messages gain nothing.
constexpr std::size_t kMost = std::size_t{1} << 26;

class MpiGroup final : public AllReduce {
 public:
  MpiGroup() {
    int got = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &got) != MPI_SUCCESS ||
        got < MPI_THREAD_FUNNELED)
      throw Error(ExitCode::kInternal, "MPI has no support for threads");
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  ~MpiGroup() override {
    // Finalising waits for the others, who wait for us if this process fails.
    if (std::uncaught_exceptions() > 0) return;
    MPI_Finalize();
  }
  MpiGroup(const MpiGroup&) = delete;
  MpiGroup& operator=(const MpiGroup&) = delete;
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void sum(std::span<float> values) override { reduce(values, MPI_FLOAT); }
  void sum(std::span<double> values) override { reduce(values, MPI_DOUBLE); }

 private:
  template <class T>
  static void reduce(std::span<T> values, MPI_Datatype type) {
    for (std::size_t at = 0; at < values.size(); at += kMost) {
      const auto part = values.subspan(at, std::min(kMost, values.size() - at));
      if (MPI_Allreduce(MPI_IN_PLACE, part.data(), static_cast<int>(part.size()), type, MPI_SUM,
                        MPI_COMM_WORLD) != MPI_SUCCESS)
        throw Error(ExitCode::kInternal, "MPI_Allreduce failed");
    }
  }
  int rank_ = 0, size_ = 1;
};

}  // namespace

std::unique_ptr<AllReduce> join_process_group() {
  // Set by Open MPI's and by PMI's launchers.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (std::getenv(name) != nullptr) return std::make_unique<MpiGroup>();
  return nullptr;
}

}  // namespace crumb::quant::train

#include <nccl.h>

#include <numeric>
#include <string>

#include "models/errors.h"
#include "quant/train/cuda/device_group.h"

namespace crumb::quant::train::cuda {
namespace {

void require_nccl(ncclResult_t result, const char* call) {
  if (result != ncclSuccess)
    throw Error(ExitCode::kInternal, std::string(call) + ": " + ncclGetErrorString(result));
}

class NcclMember final : public DeviceGroup {
 public:
  NcclMember(ncclComm_t comm, int rank, int size) : comm_(comm), rank_(rank), size_(size) {}
  ~NcclMember() override { static_cast<void>(ncclCommAbort(comm_)); }
  NcclMember(const NcclMember&) = delete;
  NcclMember& operator=(const NcclMember&) = delete;
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void sum(float* values, int64_t n, cudaStream_t s) override {
    require_nccl(
        ncclAllReduce(values, values, static_cast<std::size_t>(n), ncclFloat, ncclSum, comm_, s),
        "ncclAllReduce");
  }

 private:
  ncclComm_t comm_;
  int rank_, size_;
};

}  // namespace

std::vector<std::unique_ptr<DeviceGroup>> join_devices(int gpus) {
  std::vector<ncclComm_t> comms(static_cast<std::size_t>(gpus));
  std::vector<int> devices(comms.size());
  std::iota(devices.begin(), devices.end(), 0);
  require_nccl(ncclCommInitAll(comms.data(), gpus, devices.data()), "ncclCommInitAll");
  std::vector<std::unique_ptr<DeviceGroup>> members;
  for (int rank = 0; rank < gpus; ++rank)
    members.push_back(
        std::make_unique<NcclMember>(comms[static_cast<std::size_t>(rank)], rank, gpus));
  return members;
}

}  // namespace crumb::quant::train::cuda

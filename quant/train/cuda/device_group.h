// Sums over the GPUs of one machine that train one model together, each member in a thread of its
// own.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace crumb::quant::train::cuda {

class DeviceGroup {
 public:
  virtual ~DeviceGroup() = default;
  virtual int rank() const = 0;  // also its device's number
  virtual int size() const = 0;
  // In place, device memory. Every member calls it with as many values and gets the same bits.
  virtual void sum(float* values, int64_t n, cudaStream_t s) = 0;
};

// A member for each of the devices 0 .. gpus - 1. Two files implement it, chosen by -DCRUMB_NCCL;
// without NCCL it throws Error(kUsage). Throws Error(kInternal) for NCCL's failures.
std::vector<std::unique_ptr<DeviceGroup>> join_devices(int gpus);

}  // namespace crumb::quant::train::cuda

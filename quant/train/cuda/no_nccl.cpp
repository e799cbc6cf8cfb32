#include <string>

#include "models/errors.h"
#include "quant/train/cuda/device_group.h"

namespace crumb::quant::train::cuda {

std::vector<std::unique_ptr<DeviceGroup>> join_devices(int gpus) {
  throw Error(ExitCode::kUsage,
              "built without NCCL (--gpus: expected 1, found " + std::to_string(gpus) + ")",
              "build with -DCRUMB_NCCL=ON");
}

}  // namespace crumb::quant::train::cuda

#include "quant/train/cuda/device.h"

#include "models/errors.h"

namespace crumb::quant::train::cuda {

void require(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  const bool memory = result == cudaErrorMemoryAllocation;
  throw Error(memory ? ExitCode::kMemory : ExitCode::kInternal,
              std::string("the GPU failed (") + call + ": " + cudaGetErrorString(result) + ")",
              memory ? "use a smaller --batch or --chunk" : "");
}

std::string device_name() {
  int device = 0, driver = 0;
  require(cudaGetDevice(&device), "cudaGetDevice");
  require(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  cudaDeviceProp properties{};
  require(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return std::string(properties.name) + ", " + std::to_string(properties.multiProcessorCount) +
         " SMs, CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10);
}

std::vector<bf16> to_bf16(std::span<const float> values) {
  std::vector<bf16> out(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = __float2bfloat16_rn(values[i]);
  return out;
}

std::vector<float> to_float(std::span<const bf16> values) {
  std::vector<float> out(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = __bfloat162float(values[i]);
  return out;
}

}  // namespace crumb::quant::train::cuda

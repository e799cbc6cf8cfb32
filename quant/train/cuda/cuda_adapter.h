// AdapterTrainer on one GPU.
#pragma once
#include <memory>

#include "quant/train/adapter_trainer.h"

namespace crumb::quant::train::cuda {

struct AdapterCuda {
  int64_t B = 64, S = 128;  // windows at a time (a step takes a multiple), tokens of a window
  int64_t chunk = 4096;     // tokens whose logits are held at a time
  int tune = 0;             // Gemm's
};

// The decoder, the changes' products and the projector's in bf16, parameters and sums in float.
// Rank, widths and features must be even. Throws Error: kUsage for shapes the GPU code has no form
// for, kMemory.
std::unique_ptr<AdapterTrainer> make_adapter_trainer(const models::SourceModel& decoder,
                                                     AdapterLayout layout, std::vector<float> start,
                                                     const AdapterCuda& options);

}  // namespace crumb::quant::train::cuda

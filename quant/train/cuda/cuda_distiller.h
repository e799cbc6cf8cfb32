// Distiller on one GPU.
#pragma once
#include <memory>

#include "models/source.h"
#include "quant/train/cuda/device_group.h"
#include "quant/train/distiller.h"
#include "quant/train/student.h"

namespace crumb::quant::train::cuda {

struct CudaOptions {
  int64_t B = 64, S = 512;  // windows of a step, tokens of a window
  int64_t chunk = 4096;     // tokens whose logits are held at a time
  int tune = 0;             // Gemm's; above 1 the last bits may differ from run to run
  // Those that share every step (multi_distiller.h): reports are then of the own part of the whole.
  DeviceGroup* group = nullptr;
};

// `student_source` is the start checkpoint in full precision: its embedding (and head) are the
// student's, frozen. Throws Error: kUsage for shapes the GPU code has no form for, kMemory.
std::unique_ptr<Distiller> make_distiller(const models::SourceModel& teacher,
                                          const models::SourceModel& student_source,
                                          const Student& student, const CudaOptions& options);

}  // namespace crumb::quant::train::cuda

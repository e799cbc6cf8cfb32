// Distiller on several GPUs of one machine: every step's windows are divided, gradients summed.
#pragma once
#include "quant/train/cuda/cuda_distiller.h"

namespace crumb::quant::train::cuda {

// options.B windows are worked on by each GPU at a time, so a step takes a multiple of gpus * B.
// The result is that of one GPU up to the order of float sums, and the same every time. Throws what
// make_distiller() and join_devices() throw.
std::unique_ptr<Distiller> make_multi_distiller(const models::SourceModel& teacher,
                                                const models::SourceModel& student_source,
                                                const Student& student, const CudaOptions& options,
                                                int gpus);

}  // namespace crumb::quant::train::cuda

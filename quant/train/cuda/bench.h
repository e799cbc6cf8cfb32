// How long a training step takes, and each of its operations alone.
#pragma once
#include <ostream>

#include "models/source.h"
#include "quant/train/cuda/cuda_distiller.h"

namespace crumb::quant::train::cuda {

// Every operation of the model's step at its real size: milliseconds of one call and of all calls
// in a step, TFLOP/s or GB/s. Written as a table.
void bench_operations(const models::ModelConfig& config, const CudaOptions& options,
                      std::ostream& out);

// Steps on random tokens after two for warming up; tokens/s of the median.
void bench_steps(Distiller& distiller, const models::ModelConfig& config,
                 const CudaOptions& options, int steps, std::ostream& out);

}  // namespace crumb::quant::train::cuda

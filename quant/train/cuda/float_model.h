// A full-precision model's weights as bf16 on the GPU (the teacher; its rounding to bf16 is part of
// every figure made with it).
#pragma once
#include "models/source.h"
#include "quant/train/cuda/network.h"

namespace crumb::quant::train::cuda {

class FloatModel {
 public:
  // Throws what source.read and require_supported throw.
  explicit FloatModel(const models::SourceModel& source);
  const Weights& weights() const { return weights_; }

 private:
  std::vector<DeviceArray<bf16>> matrices_;
  DeviceArray<float> norms_;   // [2 L + 1, D]
  DeviceArray<float> biases_;  // of q k v [L, rows]
  Weights weights_;
};

// One matrix of the source, rounded to bf16.
DeviceArray<bf16> upload_matrix(const models::SourceModel& source, const std::string& name,
                                int64_t weights);

}  // namespace crumb::quant::train::cuda

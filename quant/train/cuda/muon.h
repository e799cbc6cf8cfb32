// quant/train/muon.h on the GPU: the same matrix of all layers at once, products in bf16.
#pragma once
#include <vector>

#include "quant/train/cuda/gemm.h"
#include "quant/train/cuda/ops.h"
#include "quant/train/layout.h"
#include "quant/train/muon.h"

namespace crumb::quant::train::cuda {

class Muon {
 public:
  // `gemm` must outlive it and run on `stream`. Memory is taken at the first step.
  Muon(const ParameterLayout& layout, Gemm& gemm, cudaStream_t stream);
  // Arrays in the layout's order; all masters' parts of `gradients` are overwritten. `squares`,
  // `limit`: ops.h's adam().
  void step(const MuonStep& step, const double* squares, double limit, float* gradients,
            float* parameters, float* mean);

 private:
  // One matrix of the model in every layer.
  struct Kind {
    MatrixSet set;
    int64_t N = 0, K = 0, at = 0;  // at: of layer 0, in the layout
  };
  void allocate();
  const bf16* orthogonalise(const Kind& kind);

  Gemm& gemm_;
  cudaStream_t stream_;
  std::vector<Kind> kinds_;
  DeviceArray<bf16> x_, next_, gram_, polynomial_;
  DeviceArray<double> partial_;
};

}  // namespace crumb::quant::train::cuda

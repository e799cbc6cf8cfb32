// Matrix products in bf16 with fp32 accumulation, by cuBLASLt. All matrices row-major.
#pragma once
#include <cublasLt.h>

#include <cstdint>
#include <memory>

#include "quant/train/cuda/device.h"

namespace crumb::quant::train::cuda {

// x w^T, x w or x^T w; `inner` is the length of the sums.
enum class Transposed : uint8_t { kW, kNone, kX };
struct BatchedProduct {
  Transposed transposed = Transposed::kNone;
  int64_t batch = 1, rows = 0, cols = 0, inner = 0;
  float alpha = 1, beta = 0;
};

// Keeps the handle, a workspace and the algorithm of every shape seen. The first of cuBLASLt's
// suggestions is used (tune == 0), or the fastest of the first `tune` as measured at first use,
// which may differ from run to run and so may the last bits.
class Gemm {
 public:
  explicit Gemm(cudaStream_t stream, int tune = 0);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  // y [T, N] = x [T, K] w[N, K]^T.
  void forward(const bf16* x, const bf16* w, int64_t T, int64_t N, int64_t K, bf16* y);
  void forward(const bf16* x, const bf16* w, int64_t T, int64_t N, int64_t K, float* y);
  // y = x w^T + residual, residual [T, N]; may be y.
  void forward_add(const bf16* x, const bf16* w, int64_t T, int64_t N, int64_t K,
                   const float* residual, float* y);
  // dx [T, K] = dy [T, N] w [N, K].
  void backward_input(const bf16* dy, const bf16* w, int64_t T, int64_t N, int64_t K, bf16* dx);
  // dw [N, K] = dy^T x, plus what is there if `add`.
  void backward_weight(const bf16* dy, const bf16* x, int64_t T, int64_t N, int64_t K, bool add,
                       float* dw);
  // Of each of `batch` triples that follow each other in memory: y [rows, cols] = alpha op(x) op(w)
  // + beta c; c may be null where beta is 0, and is not y where it is not.
  void batched(const BatchedProduct& p, const bf16* x, const bf16* w, const bf16* c, bf16* y);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::quant::train::cuda

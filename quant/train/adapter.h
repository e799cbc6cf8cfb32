// What teaches a frozen decoder to see: a projector from the vision tower's rows to the decoder's,
// and low-rank changes of all matrices of its blocks (LoRA, arXiv:2106.09685).
//   row   = W2 gelu(W1 f + b1) + b2          f [F]: a row of the tower, unshuffled; gelu by erf
//   W'    = W + (alpha / r) B A              A [r, K], B [N, r]
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/source.h"

namespace crumb::quant::train {

struct AdapterShape {
  int64_t features = 0;  // F
  int64_t hidden = 0;    // rows of W1
  int64_t rank = 16;     // r; 0: the decoder stays as it is
  double alpha = 32;
};

// Where everything stands in one array of floats: W1, b1, W2, b2 | A, B of every matrix.
struct AdapterMatrix {
  std::string name;  // of models/tensors.h
  int64_t layer = 0;
  int64_t N = 0, K = 0;
  int64_t a_at = 0, b_at = 0;
};
struct AdapterLayout {
  AdapterShape shape;
  int64_t dim = 0;  // D of the decoder
  int64_t w1_at = 0, b1_at = 0, w2_at = 0, b2_at = 0;
  int64_t projector = 0;                // values before the first A
  std::vector<AdapterMatrix> matrices;  // q k v o gate up down of layer 0, of layer 1, ..
  int64_t size = 0;
};
// Throws Error(kUsage) for a shape that is none.
AdapterLayout adapter_layout(const models::ModelConfig& config, const AdapterShape& shape);

// Uniform within +- 1 / sqrt(columns) for W1, W2 and A, drawn by the seed; B and biases 0, so that
// the decoder begins as it is.
std::vector<float> initial_adapter(const AdapterLayout& layout, uint64_t seed);

// w [N, K] += (alpha / r) B A.
void add_low_rank(const AdapterLayout& layout, const AdapterMatrix& matrix,
                  std::span<const float> parameters, std::span<float> w);
// dL/dW' [N, K] -> adds to dL/dA and dL/dB in `gradient` [layout.size].
void low_rank_backward(const AdapterLayout& layout, const AdapterMatrix& matrix,
                       std::span<const float> parameters, std::span<const float> dw,
                       std::span<float> gradient);

// rows [R, D] of features [R, F].
std::vector<float> project(const AdapterLayout& layout, std::span<const float> parameters,
                           std::span<const float> features);
// Adds to the projector's part of `gradient`.
void project_backward(const AdapterLayout& layout, std::span<const float> parameters,
                      std::span<const float> features, std::span<const float> d_rows,
                      std::span<float> gradient);

// The decoder with the changes in its matrices: a source for the quantizer and the engine. Both
// arguments are kept by it.
models::SourceModel with_adapter(models::SourceModel decoder, AdapterLayout layout,
                                 std::vector<float> parameters);

}  // namespace crumb::quant::train

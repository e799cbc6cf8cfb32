// What an adapter's step needs beside ops.h; conventions are that file's.
#pragma once
#include "quant/train/cuda/ops.h"

namespace crumb::quant::train::cuda {

// Rows of images among the tokens: row r stands at positions[r], rows [R, D] without the bias [D].
struct ImageRows {
  const int32_t* positions = nullptr;
  const float *rows = nullptr, *bias = nullptr;
  int64_t count = 0;
};
// x[positions[r]] = rows[r] + bias, x [T, D].
void place_rows(const ImageRows& image, int64_t D, float* x, cudaStream_t s);
// y [R, D] = x[positions[r]].
void take_rows(const int32_t* positions, const float* x, int64_t R, int64_t D, bf16* y,
               cudaStream_t s);

// z += bias, y = gelu(z) by erf; z, y [R, H].
void bias_gelu(const float* bias, int64_t R, int64_t H, float* z, bf16* y, cudaStream_t s);
// dz = dy gelu'(z), z with the bias; in place on dy.
void gelu_backward(const float* z, int64_t n, bf16* dy, cudaStream_t s);

// hit[t] = 1 if no logit of row t is larger than its label's, 0 else or for a label < 0.
// logits [T, V].
void label_is_top(const float* logits, const int32_t* labels, int64_t T, int64_t V, float* hit,
                  cudaStream_t s);

void scale(float factor, int64_t n, float* x, cudaStream_t s);

}  // namespace crumb::quant::train::cuda

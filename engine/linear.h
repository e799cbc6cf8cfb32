// Inputs of matrices, and rows of outputs: the only caller of the matmul kernels.
#pragma once
#include <cstdint>

#include "engine/weights.h"
#include "kernels/aligned.h"
#include "kernels/backend.h"

namespace crumb {

// Room for the prepared input of up to `tokens` tokens of up to `max_k` columns.
struct InputBuffer {
  InputBuffer(int64_t tokens, int64_t max_k);
  kernels::AlignedBuffer<float> x;       // [tokens, stride]
  kernels::AlignedBuffer<int8_t> q;      // [tokens, stride]
  kernels::AlignedBuffer<float> scales;  // [tokens, stride / 32]
  kernels::AlignedBuffer<int32_t> sums;  // [tokens, stride / 32]
  int64_t stride = 0;                    // multiple of 64
};

// T prepared tokens of one site; q is used by packed matrices, x [T, K] by float ones.
struct Input {
  const float* x = nullptr;
  kernels::QuantizedRows q;
};

// Prepares token `t` of the site in `buffer` from x [K] at buffer.x + t * K, which the caller has
// written: rotation in place, then int8 (nothing for a float site).
void prepare_token(const kernels::Backend& backend, const Site& site, InputBuffer& buffer,
                   int64_t t) noexcept;
Input input_of(const Site& site, const InputBuffer& buffer, int64_t T) noexcept;

// This thread's strips of matrices with N rows: an equal number, or of mixed widths equal work.
kernels::Range own_strips(const StripWork& work, int64_t N, const threads::Worker& worker) noexcept;

// y[t * ldy + n] for the rows of w in `strips` of 32.
void multiply(const kernels::Backend& backend, const Linear& w, const Input& x,
              kernels::Range strips, float* y, int64_t ldy) noexcept;

}  // namespace crumb

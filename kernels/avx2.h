// What the files of the avx2 backend show each other.
#pragma once
#include <cstdint>

#include "kernels/backend.h"

namespace crumb::kernels::avx2 {

// Backend::matmul.
void matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
            int64_t ldy) noexcept;

}  // namespace crumb::kernels::avx2

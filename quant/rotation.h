// The input rotation T = H_B S (random signs, then normalised Hadamard blocks; QuIP#
// arXiv:2402.04396 with blocks) on matrices and on second moments. With x' = T x: W' = W T^T, H' =
// T H T^T, and W' x' = W x, tr(E' H' E'^T) = tr(E H E^T). T is orthogonal, its inverse is S H_B.
#pragma once
#include <cstdint>
#include <span>

#include "models/checkpoint.h"

namespace crumb::quant {

// w [N, K] -> W T^T in place, every row as rotate_row (quant/rtn.h) does.
void rotate_rows(std::span<float> w, int64_t K, const models::Rotation& rotation, int threads = 0);

// The inverse: w [N, K] -> W T in place. The gradient of the loss by the rotated weights is
// rotate_rows() of that by the plain ones.
void unrotate_rows(std::span<float> w, int64_t K, const models::Rotation& rotation,
                   int threads = 0);

// H [K, K] symmetric -> T H T^T in place, in fp64. rotation.hadamard is a power of two that divides
// K (assert). The result is symmetric to rounding, and the same for any number of threads.
void rotate_hessian(std::span<double> H, int64_t K, const models::Rotation& rotation,
                    int threads = 0);

}  // namespace crumb::quant

// OMPQ's orthogonality of layer functions (AAAI 2023, arXiv:2109.07865): from one forward pass, how
// alike what two matrices compute is. F_i [n, p_i] are the outputs of matrix i at n token
// positions,
//   K_i = F_i F_i^T, centred by rows and columns,   ORM_ij = <K_i, K_j>_F / (|K_i|_F |K_j|_F),
// which is linear CKA: 1 for functions that are the same up to rotation, scale and offset, 0 for
// orthogonal ones.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/calibration.h"

namespace crumb::quant {

// The centred Gram matrix of F [n, p], divided by its Frobenius norm: [n, n]; zeros if F is
// constant.
std::vector<float> centred_gram(std::span<const float> F, int64_t n, int64_t p);

struct Orthogonality {
  std::vector<std::string> names;  // L matrices of the blocks, in execution order
  std::vector<double> orm;         // [L, L]
  int64_t positions = 0;
};

// ORM of centred Grams, each [n, n]: [L, L].
std::vector<double> orthogonality_matrix(std::span<const std::vector<float>> grams, int threads);

struct OrthogonalityOptions {
  int64_t windows = 8;     // the first of the calibration text
  int64_t positions = 64;  // of each, evenly spread
  int64_t skipped = 4;     // first positions of a window: attention sinks
  int threads = 0;
};
// Outputs of all matrices of the blocks (q and k before RoPE) in full precision. Memory: n^2 floats
// a matrix. Throws what source.read throws, Error(kUsage) for windows that are too short,
// Interrupted.
Orthogonality measure_orthogonality(const models::SourceModel& source,
                                    const CalibrationWindows& windows,
                                    const OrthogonalityOptions& options,
                                    const ProgressFn& progress);

// gamma_i = sum over j != i of ORM_ij.
std::vector<double> redundancy(const Orthogonality& orthogonality);

}  // namespace crumb::quant

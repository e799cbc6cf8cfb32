// What EMQ's proxies (ICCV 2023, arXiv:2307.10554) are made of, for every matrix of the blocks at a
// fixed sample of its weights, from one walk forward and back:
//   W  the weight w_nk
//   A  mean |x_k| of the input it is multiplied by
//   G  dL/dw_nk, the mean over windows, L = -log p of labels drawn from the model
//   H  the diagonal of the Fisher matrix, mean over windows of (dL/dw_nk)^2
//   E  the error of rounding it at a width, for each width
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/calibration.h"
#include "quant/method.h"

namespace crumb::quant::emq {

enum class Term : uint8_t { kWeight, kActivation, kGradient, kHessian, kError };
inline constexpr std::array<const char*, 5> kTermNames = {"W", "A", "G", "H", "E"};
inline constexpr std::size_t kFixedTerms = 4;  // all but E, which depends on the width

struct MatrixTerms {
  std::string name;
  int64_t weights = 0;
  std::array<std::vector<float>, kFixedTerms> fixed;  // [samples] each
  std::vector<std::vector<float>> error;              // [widths][samples]
};

struct TermOptions {
  int64_t samples = 4096;  // of a matrix, fewer if it is smaller
  int64_t windows = 4;     // of the calibration text
  std::vector<int> widths = {2, 3, 4, 8};
  uint64_t seed = 1;
  int threads = 0;
};

// Rounding is to nearest in the form of `method` (group, grid, rule), without a rotation. In
// execution order; the same for any number of threads. Throws what ModelWalk and rtn() throw.
std::vector<MatrixTerms> measure_terms(const models::SourceModel& source,
                                       const CalibrationWindows& windows, const Method& method,
                                       const TermOptions& options, const ProgressFn& progress);

}  // namespace crumb::quant::emq

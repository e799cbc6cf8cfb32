// How much an error in a matrix's output matters to the model's predictions.
//
// For a small error dy of a linear's output y [N] at every token,
//   KL(p || p') ~ 1/2 E[dy^T F dy],   F = E[g g^T],  g = dL/dy of L = -sum_t log p(label_t),
// with labels drawn from the model's own predictions p (the Fisher matrix). Taking F as diagonal,
// as the same at every token and as independent of the linear's input, an error E = W - W' gives
//   KL ~ 1/2 sum_r F_rr (E H E^T)_rr   nats a token, H = E[x x^T].
// These are approximations: of all errors but small ones, and of errors that add up over matrices.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/calibration.h"

namespace crumb::quant {

struct OutputMoments {
  std::map<std::string, std::vector<float>> rows;    // F_rr [N] of every matrix of the blocks
  std::map<std::string, std::vector<float>> tokens;  // |g_t|^2 [tokens], likewise
  std::vector<int32_t> labels;                       // drawn, one a token
};

// Walks the model forward and back once over the first `most_windows` windows. Holds the hidden
// states of all blocks and the head. `seed` draws the labels; the result does not depend on the
// number of threads (0: all of the machine). `progress` (may be empty) counts blocks, forward and
// back; Interrupted is thrown when it returns false. Throws what source.read throws, and
// Error(kNumeric) naming the matrix if a moment is not finite.
OutputMoments output_moments(const models::SourceModel& source, const CalibrationWindows& windows,
                             int64_t most_windows, uint64_t seed, int threads,
                             const ProgressFn& progress);

}  // namespace crumb::quant

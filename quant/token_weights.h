// How much a token counts in the second moments that a matrix is rounded by.
//
// The loss of an error E = W - W' is about 1/2 sum_t |g_t|^2 |E x_t|^2 / N: a token whose output
// hardly matters (the first of a window, an attention sink whose activations are a hundred times
// larger than all others) should not rule H = E[x x^T].
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/progress.h"
#include "models/source.h"
#include "quant/calibration.h"
#include "quant/method.h"

namespace crumb::quant {

// kEqual: every token counts alike. kRelative: in o and down, which add to the residual stream, a
// token counts as one over the stream's mean square, for the stream is normed before it is used.
// kGradient: as the root of |g_t|^2, g = dL/dy of the matrix's output for labels drawn from the
// model (quant/output_moments.h); the root, because one draw of g is noisy (GuidedQuant,
// arXiv:2505.07004, takes the square of groups of rows).
enum class TokenWeights : uint8_t { kEqual, kRelative, kGradient };
inline constexpr Named<TokenWeights> kTokenWeights[] = {{"equal", TokenWeights::kEqual},
                                                        {"relative", TokenWeights::kRelative},
                                                        {"gradient", TokenWeights::kGradient}};

// |g_t|^2 [tokens] of the outputs of every matrix of the blocks, by name. Walks the model forward
// and back in parts of 8 windows; independent of the number of threads. Throws what
// output_moments() throws.
using TokenGradients = std::map<std::string, std::vector<float>>;
TokenGradients token_gradients(const models::SourceModel& source, const CalibrationWindows& windows,
                               int threads, const ProgressFn& progress);

// [tokens], mean 1; all 1 if they are 0. `residual` [tokens, D] is the stream the matrix adds to,
// empty for others; `gradients` [tokens], read by kGradient.
std::vector<float> token_weights(TokenWeights kind, std::span<const float> residual, int64_t D,
                                 std::span<const float> gradients, int64_t tokens);

}  // namespace crumb::quant

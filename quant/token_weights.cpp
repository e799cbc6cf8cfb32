#include "quant/token_weights.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "quant/output_moments.h"

namespace crumb::quant {
namespace {

constexpr int64_t kPart = 8;   // windows walked together: the streams of all blocks are held
constexpr uint64_t kSeed = 1;  // of the labels

std::vector<float> relative(std::span<const float> residual, int64_t D) {
  std::vector<float> weights;
  for (std::size_t t = 0; t < residual.size(); t += static_cast<std::size_t>(D)) {
    const auto row = residual.subspan(t, static_cast<std::size_t>(D));
    double sum = 0;
    for (const float x : row) sum += static_cast<double>(x) * static_cast<double>(x);
    weights.push_back(sum > 0 ? static_cast<float>(static_cast<double>(D) / sum) : 0.0f);
  }
  return weights;
}

}  // namespace

TokenGradients token_gradients(const models::SourceModel& source, const CalibrationWindows& windows,
                               int threads, const ProgressFn& progress) {
  TokenGradients all;
  for (int64_t first = 0; first < windows.count(); first += kPart) {
    const int64_t count = std::min(kPart, windows.count() - first);
    CalibrationWindows part;
    part.S = windows.S;
    part.ids.assign(windows.ids.begin() + first * windows.S,
                    windows.ids.begin() + (first + count) * windows.S);
    const OutputMoments moments = output_moments(
        source, part, count, kSeed + static_cast<uint64_t>(first), threads, progress);
    for (const auto& [name, squares] : moments.tokens)
      all[name].insert(all[name].end(), squares.begin(), squares.end());
  }
  return all;
}

std::vector<float> token_weights(TokenWeights kind, std::span<const float> residual, int64_t D,
                                 std::span<const float> gradients, int64_t tokens) {
  std::vector<float> weights(static_cast<std::size_t>(tokens), 1.0f);
  if (kind == TokenWeights::kRelative && !residual.empty()) weights = relative(residual, D);
  if (kind == TokenWeights::kGradient)
    std::transform(gradients.begin(), gradients.end(), weights.begin(),
                   [](float square) { return std::sqrt(square); });
  assert(std::ssize(weights) == tokens);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (!(sum > 0)) return std::vector<float>(weights.size(), 1.0f);
  for (float& weight : weights)
    weight = static_cast<float>(static_cast<double>(weight) * static_cast<double>(tokens) / sum);
  return weights;
}

}  // namespace crumb::quant

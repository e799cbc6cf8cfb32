#include "quant/moments.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "models/errors.h"
#include "quant/blas.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr int64_t kTile = 192;  // rows and columns; divides the widths of common models

std::size_t index(train::LinearInput input) { return static_cast<std::size_t>(input); }

}  // namespace

MomentSums::MomentSums(const models::ModelConfig& config) {
  for (const train::LinearInput input : train::kLinearInputs) {
    const int64_t K = train::linear_input_width(config, input);
    InputStatistics& s = sums_.inputs[index(input)];
    s.K = K;
    s.H.resize(static_cast<std::size_t>(K * K));
    s.mean_abs.resize(static_cast<std::size_t>(K));
    s.max_abs.resize(static_cast<std::size_t>(K));
    abs_[index(input)].resize(static_cast<std::size_t>(K));
    for (int64_t row = 0; row < K; row += kTile)
      for (int64_t column = 0; column <= row; column += kTile)
        tiles_.push_back({input, row, column});
  }
}

void MomentSums::add(std::span<const train::BlockActivations> windows, int64_t S, int threads) {
  for (InputStatistics& s : sums_.inputs) s.tokens += std::ssize(windows) * S;
  parallel_rows(std::ssize(tiles_), threads, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(kTile * kTile);
    for (int64_t i = begin; i < end; ++i)
      add_tile(tiles_[static_cast<std::size_t>(i)], windows, S, scratch);
  });
}

void MomentSums::add_tile(const Tile& tile, std::span<const train::BlockActivations> windows,
                          int64_t S, std::vector<float>& scratch) {
  InputStatistics& s = sums_.inputs[index(tile.input)];
  const int64_t rows = std::min(kTile, s.K - tile.row);
  const int64_t columns = std::min(kTile, s.K - tile.column);
  const int K = static_cast<int>(s.K);
  for (const train::BlockActivations& window : windows)
    for (int64_t t = 0; t < S; t += kSumTokens) {
      const int64_t tokens = std::min(kSumTokens, S - t);
      const auto x =
          train::linear_input(window, tile.input).subspan(static_cast<std::size_t>(t * s.K));
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, static_cast<int>(rows),
                  static_cast<int>(columns), static_cast<int>(tokens), 1.0f, x.data() + tile.row, K,
                  x.data() + tile.column, K, 0.0f, scratch.data(), static_cast<int>(columns));
      for (int64_t i = 0; i < rows; ++i) {
        double* h = s.H.data() + (tile.row + i) * s.K + tile.column;
        const float* part = scratch.data() + i * columns;
        for (int64_t j = 0; j < columns; ++j) h[j] += static_cast<double>(part[j]);
      }
      if (tile.row == tile.column) add_columns(tile, x, tokens);
    }
}

void MomentSums::add_columns(const Tile& tile, std::span<const float> x, int64_t tokens) {
  InputStatistics& s = sums_.inputs[index(tile.input)];
  auto& sums = abs_[index(tile.input)];
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = tile.column; k < std::min(tile.column + kTile, s.K); ++k) {
      const float value = std::abs(x[static_cast<std::size_t>(t * s.K + k)]);
      float& most = s.max_abs[static_cast<std::size_t>(k)];
      most = std::max(most, value);
      sums[static_cast<std::size_t>(k)] += static_cast<double>(value);
    }
}

BlockStatistics MomentSums::finish(int64_t layer) && {
  for (const train::LinearInput input : train::kLinearInputs) {
    InputStatistics& s = sums_.inputs[index(input)];
    const auto n = static_cast<double>(s.tokens);
    const auto K = static_cast<std::size_t>(s.K);
    for (std::size_t k = 0; k < K; ++k) {
      s.mean_abs[k] = static_cast<float>(abs_[index(input)][k] / n);
      for (std::size_t j = 0; j <= k; ++j)
        s.H[k * K + j] = s.H[j * K + k] =
            static_cast<double>(static_cast<float>(s.H[k * K + j] / n));
      // |H_kj| <= max(H_kk, H_jj), so that the diagonal tells of every infinity or NaN.
      if (!std::isfinite(s.H[k * K + k]))
        throw Error(ExitCode::kNumeric,
                    "activations are not finite (block " + std::to_string(layer) + ", " +
                        std::string(train::linear_input_name(input)) + ", column " +
                        std::to_string(k) + ": expected numbers, found " +
                        std::to_string(s.H[k * K + k]) + ")",
                    "the weights of this or an earlier block are damaged");
    }
  }
  return std::move(sums_);
}

}  // namespace crumb::quant

#include "quant/moments.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "models/errors.h"
#include "quant/blas.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr int64_t kTile = 192;  // rows and columns; divides the widths of common models

std::size_t index(train::LinearInput input) { return static_cast<std::size_t>(input); }

}  // namespace

InputSums::InputSums(int64_t K) {
  sums_.K = K;
  sums_.H.resize(static_cast<std::size_t>(K * K));
  sums_.mean_abs.resize(static_cast<std::size_t>(K));
  sums_.max_abs.resize(static_cast<std::size_t>(K));
  abs_.resize(static_cast<std::size_t>(K));
  for (int64_t row = 0; row < K; row += kTile)
    for (int64_t column = 0; column <= row; column += kTile) tiles_.push_back({row, column});
}

void InputSums::add(int64_t which, std::span<const float> x) {
  const Tile& tile = tiles_[static_cast<std::size_t>(which)];
  const int64_t K = sums_.K;
  const int64_t rows = std::min(kTile, K - tile.row);
  const int64_t columns = std::min(kTile, K - tile.column);
  std::vector<float> products(static_cast<std::size_t>(rows * columns));
  const auto as_int = [](int64_t n) { return static_cast<blasint>(n); };
  for (int64_t t = 0; t < std::ssize(x) / K; t += kSumTokens) {
    const int64_t tokens = std::min(kSumTokens, std::ssize(x) / K - t);
    const auto part = x.subspan(static_cast<std::size_t>(t * K));
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(rows), as_int(columns),
                as_int(tokens), 1.0f, part.data() + tile.row, as_int(K), part.data() + tile.column,
                as_int(K), 0.0f, products.data(), as_int(columns));
    for (int64_t i = 0; i < rows; ++i) {
      double* h = sums_.H.data() + (tile.row + i) * K + tile.column;
      const float* from = products.data() + i * columns;
      for (int64_t j = 0; j < columns; ++j) h[j] += static_cast<double>(from[j]);
    }
    if (tile.row == tile.column) add_columns(tile, part, tokens);
  }
}

void InputSums::add_columns(const Tile& tile, std::span<const float> x, int64_t tokens) {
  const auto begin = static_cast<std::size_t>(tile.column);
  const auto end = static_cast<std::size_t>(std::min(tile.column + kTile, sums_.K));
  std::vector<float> sums(end - begin);
  float* most = sums_.max_abs.data() + begin;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = x.data() + t * sums_.K + tile.column;
    for (std::size_t k = 0; k < sums.size(); ++k) {
      const float value = std::abs(row[k]);
      most[k] = most[k] < value ? value : most[k];
      sums[k] += value;
    }
  }
  for (std::size_t k = 0; k < sums.size(); ++k) abs_[begin + k] += static_cast<double>(sums[k]);
}

InputStatistics InputSums::finish(const std::string& name) && {
  const auto n = static_cast<double>(sums_.tokens);
  const auto K = static_cast<std::size_t>(sums_.K);
  for (std::size_t k = 0; k < K; ++k) {
    sums_.mean_abs[k] = static_cast<float>(abs_[k] / n);
    for (std::size_t j = 0; j <= k; ++j)
      sums_.H[k * K + j] = sums_.H[j * K + k] =
          static_cast<double>(static_cast<float>(sums_.H[k * K + j] / n));
    // |H_kj| <= max(H_kk, H_jj), so that the diagonal tells of every infinity or NaN.
    if (!std::isfinite(sums_.H[k * K + k]))
      throw Error(ExitCode::kNumeric,
                  "activations are not finite (" + name + ", column " + std::to_string(k) +
                      ": expected numbers, found " + std::to_string(sums_.H[k * K + k]) + ")",
                  "the weights of this or an earlier block are damaged");
  }
  return std::move(sums_);
}

MomentSums::MomentSums(const models::ModelConfig& config) {
  for (const train::LinearInput input : train::kLinearInputs) {
    inputs_.emplace_back(train::linear_input_width(config, input));
    for (int64_t tile = 0; tile < inputs_.back().tiles(); ++tile) work_.push_back({input, tile});
  }
}

void MomentSums::add(std::span<const train::BlockActivations> windows, int64_t S, int threads) {
  for (InputSums& sums : inputs_) sums.count(std::ssize(windows) * S);
  parallel_rows(std::ssize(work_), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Work& work = work_[static_cast<std::size_t>(i)];
      for (const train::BlockActivations& window : windows)
        inputs_[index(work.input)].add(work.tile, train::linear_input(window, work.input));
    }
  });
}

BlockStatistics MomentSums::finish(int64_t layer) && {
  BlockStatistics statistics;
  for (const train::LinearInput input : train::kLinearInputs)
    statistics.inputs[index(input)] = std::move(inputs_[index(input)])
                                          .finish("block " + std::to_string(layer) + ", " +
                                                  std::string(train::linear_input_name(input)));
  return statistics;
}

InputStatistics second_moments(std::span<const float> x, int64_t K, const std::string& name,
                               int threads) {
  load_blas();
  InputSums sums(K);
  sums.count(std::ssize(x) / K);
  parallel_rows(sums.tiles(), threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) sums.add(tile, x);
  });
  return std::move(sums).finish(name);
}

std::vector<double> cross_moments(std::span<const float> a, int64_t Ka, std::span<const float> b,
                                  int64_t Kb, int threads) {
  load_blas();
  const int64_t tokens = std::ssize(a) / Ka;
  std::vector<double> mean(static_cast<std::size_t>(Ka * Kb));
  const int64_t across = (Kb + kTile - 1) / kTile;
  const auto as_int = [](int64_t n) { return static_cast<blasint>(n); };
  parallel_rows((Ka + kTile - 1) / kTile * across, threads, [&](int64_t begin, int64_t end) {
    std::vector<float> products(static_cast<std::size_t>(kTile * kTile));
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile / across * kTile, column = tile % across * kTile;
      const int64_t rows = std::min(kTile, Ka - row), columns = std::min(kTile, Kb - column);
      double* to = mean.data() + row * Kb + column;
      for (int64_t t = 0; t < tokens; t += kSumTokens) {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(rows), as_int(columns),
                    as_int(std::min(kSumTokens, tokens - t)), 1.0f, a.data() + t * Ka + row,
                    as_int(Ka), b.data() + t * Kb + column, as_int(Kb), 0.0f, products.data(),
                    as_int(columns));
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < columns; ++j)
            to[i * Kb + j] +=
                static_cast<double>(products[static_cast<std::size_t>(i * columns + j)]);
      }
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) to[i * Kb + j] /= static_cast<double>(tokens);
    }
  });
  return mean;
}

}  // namespace crumb::quant

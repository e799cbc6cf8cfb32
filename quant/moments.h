// Second moments of activations, summed so that the result does not depend on threads.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/config.h"
#include "quant/calibration.h"
#include "quant/train/block.h"

namespace crumb::quant {

// The sums of one input x [tokens, K]. The matrix is cut into square tiles of fixed size; threads
// divide the tiles, and a tile adds its tokens in their order.
class InputSums {
 public:
  explicit InputSums(int64_t K);
  int64_t tiles() const { return std::ssize(tiles_); }
  // Adds x [tokens, K] to one tile: up to kSumTokens at a time in float, these in double.
  void add(int64_t tile, std::span<const float> x);
  void count(int64_t tokens) { sums_.tokens += tokens; }  // once for all tiles
  // The means; the sums are given up. Throws Error(kNumeric) naming `name` for values that are not
  // finite.
  InputStatistics finish(const std::string& name) &&;

 private:
  struct Tile {
    int64_t row, column;  // first row and column, column <= row
  };
  void add_columns(const Tile& tile, std::span<const float> x, int64_t tokens);

  InputStatistics sums_;     // lower triangles only
  std::vector<double> abs_;  // [K]
  std::vector<Tile> tiles_;
};

// BlockStatistics of the windows' activations.
class MomentSums {
 public:
  explicit MomentSums(const models::ModelConfig& config);
  // Adds the linear inputs of windows.
  void add(std::span<const train::BlockActivations> windows, int64_t S, int threads);
  BlockStatistics finish(int64_t layer) &&;

 private:
  struct Work {
    train::LinearInput input;
    int64_t tile;
  };
  std::vector<InputSums> inputs_;  // by LinearInput
  std::vector<Work> work_;
};

// Statistics of x [tokens, K] alone, summed in the same way.
InputStatistics second_moments(std::span<const float> x, int64_t K, const std::string& name,
                               int threads);

// [Ka, Kb]: the mean over tokens of a b^T, a [tokens, Ka], b [tokens, Kb]. Sums as above,
// independent of the number of threads.
std::vector<double> cross_moments(std::span<const float> a, int64_t Ka, std::span<const float> b,
                                  int64_t Kb, int threads);

}  // namespace crumb::quant

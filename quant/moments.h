// Second moments of activations, summed so that the result does not depend on threads.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/config.h"
#include "quant/calibration.h"
#include "quant/train/block.h"

namespace crumb::quant {

// Gathers BlockStatistics from the windows' activations. The matrices are cut into square tiles of
// fixed size; threads divide the tiles, and a tile adds the windows in their order.
class MomentSums {
 public:
  explicit MomentSums(const models::ModelConfig& config);
  // Adds the linear inputs of windows of S tokens.
  void add(std::span<const train::BlockActivations> windows, int64_t S, int threads);
  // The means; the sums are given up. Throws Error(kNumeric) naming `layer` and the input for
  // values that are not finite.
  BlockStatistics finish(int64_t layer) &&;

 private:
  struct Tile {
    train::LinearInput input;
    int64_t row, column;  // first row and column, column <= row
  };
  void add_tile(const Tile& tile, std::span<const train::BlockActivations> windows, int64_t S,
                std::vector<float>& scratch);
  void add_columns(const Tile& tile, std::span<const float> x, int64_t tokens);

  BlockStatistics sums_;  // lower triangles only
  std::array<std::vector<double>, train::kLinearInputs.size()> abs_;
  std::vector<Tile> tiles_;
};

}  // namespace crumb::quant

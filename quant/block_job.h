// One block of the model: equalise, round every matrix, reconstruct. What comes out is what the
// file stores and the weights the next blocks' calibration runs through.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "quant/calibration.h"
#include "quant/matrix_job.h"
#include "quant/plan.h"
#include "quant/train/block.h"

namespace crumb::quant {

// A tensor as it will be stored: packed, or float if `values` is not empty.
struct StoredTensor {
  std::string name;
  models::PackedData packed;
  std::vector<float> values;
  TensorReport report;  // packed ones
};
using StoredBlock = std::vector<StoredTensor>;  // in the order of the tensor table

// The linears of a block by their input.
struct BlockMatrix {
  std::string_view suffix;  // of the tensor's name
  std::vector<float> train::BlockWeights::*member;
  train::LinearInput input;
};
std::span<const BlockMatrix> block_matrices();

// The values of a tensor of block tensor.layer.
const std::vector<float>& block_tensor(const train::BlockWeights& weights,
                                       const models::TensorInfo& tensor);

// A block between the steps.
struct BlockAtWork {
  int64_t layer = 0;
  models::ModelConfig config;   // models::layer_config() of the layer
  train::BlockWeights weights;  // full precision; equalised, if a step did
  // Of the inputs the matrices will see; transformed together with the weights by equalisation.
  BlockStatistics statistics;
  StoredBlock stored;  // empty until rounded
  int threads = 0;
};

// What other methods put around the rounding; an empty function is left out.
struct BlockSteps {
  // Before rounding: changes `weights` (norms and rows absorb the column factors, so that the
  // block still computes the same) and scales `statistics` alike.
  std::function<void(BlockAtWork&)> equalise;
  // After rounding: improves `stored`, whose codes and scales it may replace (tensors, shapes, bits
  // and rotations stay). The calibrator stands at this block: full_stream() and prefix_stream()
  // are its inputs.
  std::function<void(BlockAtWork&, Calibrator&)> reconstruct;
};

// Column scales by options.equalise, folded into block.weights and block.statistics.
void equalise_block(const QuantizeOptions& options, BlockAtWork& block);

// Rounds block.weights into block.stored with the methods of `options`. Throws what round_matrix
// throws, with the tensor's full name.
void round_block(const QuantizeOptions& options, BlockAtWork& block);

// Block `layer` of a job without data: equalised and rounded.
StoredBlock round_without_data(const models::SourceModel& source, const QuantizeOptions& options,
                               int64_t layer);

// The weights a stored block stands for.
train::BlockWeights restore_block(const models::ModelConfig& config, const StoredBlock& stored,
                                  int threads);

}  // namespace crumb::quant

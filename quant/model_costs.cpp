#include "quant/model_costs.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "models/tensors.h"
#include "quant/block_job.h"
#include "quant/cost_journal.h"
#include "quant/matrix_job.h"
#include "quant/output_moments.h"
#include "quant/rotation.h"

namespace crumb::quant {
namespace {

std::vector<MatrixCosts> measure_block(const CalibrationBlock& block, const Method& method,
                                       const OutputMoments& outputs, int threads) {
  const LdlqOptions ldlq_options = {method.bits,          method.group,  method.grid,
                                    ScaleRule::kWeighted, method.scales, method.greedy_passes};
  std::vector<MatrixCosts> costs;
  std::optional<PreparedInput> input;
  std::optional<train::LinearInput> prepared;
  for (const BlockMatrix& matrix : block_matrices()) {
    const std::string name = models::layer_tensor(block.layer, std::string(matrix.suffix));
    const InputStatistics& statistics = block.full->of(matrix.input);
    if (prepared != matrix.input) {
      input.reset();  // two of them need not be in memory
      input = prepare_input(statistics.H, statistics.K, method, name + " input", threads);
      prepared = matrix.input;
    }
    std::vector<float> w = block.weights.*matrix.member;
    if (method.rotation.hadamard != 0) rotate_rows(w, statistics.K, method.rotation, threads);
    costs.push_back(measure_costs(name, w, std::ssize(w) / statistics.K, statistics.K,
                                  *input->factor, outputs.rows.at(name), ldlq_options, threads));
  }
  return costs;
}

OutputMoments measure_moments(const models::SourceModel& source, const QuantizeOptions& options,
                              const CostOptions& costs, const CostJournal* journal,
                              const ProgressFn& progress) {
  if (journal != nullptr)
    if (auto kept = journal->load_moments()) return *std::move(kept);
  OutputMoments moments = output_moments(source, options.calibration->windows, costs.output_windows,
                                         costs.seed, options.threads, progress);
  if (journal != nullptr) journal->save_moments(moments);
  return moments;
}

}  // namespace

std::vector<MatrixCosts> measure_model(const models::SourceModel& source,
                                       const QuantizeOptions& options, const CostOptions& costs,
                                       const CostJournal* journal, const ProgressFn& progress) {
  const int64_t layers = source.config.layers;
  std::vector<std::optional<std::vector<MatrixCosts>>> blocks(static_cast<std::size_t>(layers));
  int64_t last = -1;  // block that is not in the journal
  for (int64_t layer = 0; layer < layers; ++layer) {
    auto& block = blocks[static_cast<std::size_t>(layer)];
    if (journal != nullptr) block = journal->load_block(layer);
    if (!block) last = layer;
  }
  if (last >= 0) {
    const OutputMoments outputs = measure_moments(source, options, costs, journal, progress);
    Method method = options.linear;
    method.rounding = Rounding::kLdlq;
    CalibrationOptions calibration;
    calibration.threads = options.threads;
    Calibrator calibrator(source, options.calibration->windows, calibration, progress);
    for (int64_t layer = 0; layer <= last; ++layer) {
      auto& block = blocks[static_cast<std::size_t>(layer)];
      if (!block) {
        block = measure_block(calibrator.next_block(), method, outputs, options.threads);
        if (journal != nullptr) journal->save_block(layer, *block);
      }
      if (layer < last) calibrator.advance();
    }
  }
  std::vector<MatrixCosts> all;
  for (auto& block : blocks) std::move(block->begin(), block->end(), std::back_inserter(all));
  return all;
}

}  // namespace crumb::quant

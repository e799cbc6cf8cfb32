#include "quant/model_costs.h"

#include <optional>
#include <string>

#include "models/tensors.h"
#include "quant/block_job.h"
#include "quant/matrix_job.h"
#include "quant/output_moments.h"
#include "quant/rotation.h"

namespace crumb::quant {

std::vector<MatrixCosts> measure_model(const models::SourceModel& source,
                                       const QuantizeOptions& options, const CostOptions& costs,
                                       const ProgressFn& progress) {
  const CalibrationWindows& windows = options.calibration->windows;
  const OutputMoments outputs =
      output_moments(source, windows, costs.output_windows, costs.seed, options.threads, progress);
  Method method = options.linear;
  method.rounding = Rounding::kLdlq;
  const LdlqOptions ldlq_options = {method.bits,          method.group,  method.grid,
                                    ScaleRule::kWeighted, method.scales, method.greedy_passes};
  CalibrationOptions calibration;
  calibration.threads = options.threads;
  Calibrator calibrator(source, windows, calibration, progress);
  std::vector<MatrixCosts> all;
  for (; !calibrator.done(); calibrator.advance()) {
    const CalibrationBlock block = calibrator.next_block();
    std::optional<PreparedInput> input;
    std::optional<train::LinearInput> prepared;
    for (const BlockMatrix& matrix : block_matrices()) {
      const std::string name = models::layer_tensor(block.layer, std::string(matrix.suffix));
      const InputStatistics& statistics = block.full->of(matrix.input);
      if (prepared != matrix.input) {
        input.reset();  // two of them need not be in memory
        input = prepare_input(statistics.H, statistics.K, method, name + " input", options.threads);
        prepared = matrix.input;
      }
      std::vector<float> w = block.weights.*matrix.member;
      if (method.rotation.hadamard != 0)
        rotate_rows(w, statistics.K, method.rotation, options.threads);
      all.push_back(measure_costs(name, w, std::ssize(w) / statistics.K, statistics.K,
                                  *input->factor, outputs.rows.at(name), ldlq_options,
                                  options.threads));
    }
  }
  return all;
}

}  // namespace crumb::quant

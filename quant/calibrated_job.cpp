#include "quant/calibrated_job.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "models/errors.h"
#include "models/tensors.h"
#include "quant/moments.h"
#include "quant/parallel.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

// Names the calibrator's work for the whole job; it counts every block's windows twice (statistics,
// then the way through the stored weights), which must not look like going back.
ProgressFn one_stage(const ProgressFn& progress) {
  if (!progress) return {};
  return [progress, most = int64_t{0}](const Progress& p) mutable {
    most = std::max(most, p.done);
    return progress({"quantize", p.item, most, p.total});
  };
}

StoredBlock quantize_block(const models::SourceModel& source, const QuantizeOptions& options,
                           const BlockSteps& steps, Calibrator& calibrator) {
  CalibrationBlock block = calibrator.next_block();
  BlockAtWork work{block.layer,
                   source.config,
                   std::move(block.weights),
                   *std::move(block.prefix ? block.prefix : block.full),
                   {},
                   options.threads};
  equalise_block(options, work);
  if (steps.equalise) steps.equalise(work);
  round_block(options, work);
  if (steps.reconstruct) steps.reconstruct(work, calibrator);
  return std::move(work.stored);
}

// The second moments of what the head multiplies.
InputStatistics head_statistics(const models::SourceModel& source, std::span<const float> stream,
                                int threads) {
  const int64_t D = source.config.dim;
  std::vector<float> gain(static_cast<std::size_t>(D));
  source.read("model.norm.weight", gain);
  std::vector<float> normed(stream.size());
  train::rmsnorm(stream, gain, source.config.norm_eps, normed);
  return second_moments(normed, D, "head input", threads);
}

StoredTensor quantize_head(const models::SourceModel& source, const QuantizeOptions& options,
                           const models::TensorInfo& tensor, std::span<const float> stream) {
  const Method method = method_for(options, tensor);
  const int64_t N = tensor.shape[0], K = tensor.shape[1];
  const InputStatistics statistics = head_statistics(source, stream, options.threads);
  const PreparedInput input =
      prepare_input(statistics.H, K, method, tensor.name + " input", options.threads);
  std::vector<float> w(static_cast<std::size_t>(N * K));
  source.read(tensor.name, w);
  MatrixResult result = round_matrix(w, N, K, method, &input, tensor.name, options.threads);
  return {tensor.name, std::move(result.packed), {}, std::move(result.report)};
}

// LDLQ that needed more than the usual damping is worth a line.
void report_damping(const StoredBlock& block, const NoticeFn& notice) {
  for (const StoredTensor& tensor : block)
    if (tensor.report.damping > kDampingLadder[0] && notice)
      notice("damping raised to " + std::to_string(tensor.report.damping) + " of the mean (" +
             tensor.name + ": second moments of the calibration text are not positive below)");
}

}  // namespace

bool needs_calibration(const models::ModelConfig& config, const QuantizeOptions& options,
                       const BlockSteps& steps) {
  if (steps.equalise || steps.reconstruct || needs_statistics(options.equalise.method)) return true;
  if (options.reconstruction.method != Reconstruction::kNone) return true;
  const auto table = models::tensor_table(config);
  return std::any_of(table.begin(), table.end(), [&](const models::TensorInfo& tensor) {
    return needs_statistics(method_for(options, tensor));
  });
}

models::TensorInfo head_tensor(const models::ModelConfig& config) {
  const auto role = config.tied_head ? models::TensorRole::kEmbedding : models::TensorRole::kHead;
  for (models::TensorInfo& tensor : models::tensor_table(config))
    if (tensor.role == role) return std::move(tensor);
  return {};
}

void run_calibrated(const models::SourceModel& source, const QuantizeOptions& options,
                    const BlockSteps& steps, const Journal& journal, const NoticeFn& notice,
                    const ProgressFn& progress) {
  CalibrationOptions calibration;
  calibration.threads = options.threads;
  calibration.full = !options.prefix;
  Calibrator calibrator(source, options.calibration->windows, calibration, one_stage(progress));
  int64_t resumed = 0;
  for (int64_t layer = 0; !calibrator.done(); ++layer) {
    std::optional<StoredBlock> block = journal.load(layer);
    resumed += block ? 1 : 0;
    if (!block) {
      block = quantize_block(source, options, steps, calibrator);
      report_damping(*block, notice);
      journal.save(layer, *block);
    }
    if (options.prefix)
      calibrator.advance(restore_block(source.config, *block, options.threads));
    else
      calibrator.advance();
  }
  if (resumed > 0 && notice)
    notice("resumed: " + std::to_string(resumed) + " of " + std::to_string(source.config.layers) +
           " blocks came from the journal");
  const models::TensorInfo head = head_tensor(source.config);
  if (!needs_statistics(method_for(options, head)) || journal.load(head_part(source.config)))
    return;
  StoredBlock part = {quantize_head(source, options, head, calibrator.prefix_stream())};
  report_damping(part, notice);
  journal.save(head_part(source.config), part);
}

}  // namespace crumb::quant

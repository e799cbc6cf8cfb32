#include "quant/calibrated_job.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "models/errors.h"
#include "models/tensors.h"
#include "quant/moments.h"
#include "quant/parallel.h"
#include "quant/sequential.h"
#include "quant/token_weights.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

// What the head adds to the work of all blocks, about: it is rounded, but nothing runs through it.
double head_share(const models::ModelConfig& config, const QuantizeOptions& options) {
  const models::TensorInfo head = head_tensor(config);
  if (!needs_statistics(method_for(options, head))) return 0;
  double linear = 0;
  for (const models::TensorInfo& tensor : models::tensor_table(config))
    if (tensor.role == models::TensorRole::kLinear)
      linear += static_cast<double>(tensor.shape[0]) * static_cast<double>(tensor.shape[1]);
  return 0.3 * static_cast<double>(head.shape[0]) * static_cast<double>(head.shape[1]) / linear;
}

// Names the calibrator's work for the whole job; it counts every block's windows twice (statistics,
// then the way through the stored weights), which must not look like going back.
ProgressFn one_stage(const ProgressFn& progress, double more) {
  if (!progress) return {};
  return [progress, more, most = int64_t{0}](const Progress& p) mutable {
    most = std::max(most, p.done);
    const auto total = static_cast<int64_t>(static_cast<double>(p.total) * (1 + more));
    return progress({"quantize", most == p.total ? "head" : p.item, most, total});
  };
}

// Through the block with the streams: advances the calibrator, unless reconstruction changes what
// is stored.
StoredBlock quantize_in_sequence(const models::SourceModel& source, const QuantizeOptions& options,
                                 const TokenGradients& gradients, const BlockSteps& steps,
                                 int64_t layer, Calibrator& calibrator) {
  BlockAtWork work{layer,
                   models::layer_config(source.config, layer),
                   train::read_block(source, layer),
                   {},
                   {},
                   options.threads};
  if (needs_statistics(options.equalise.method) || steps.equalise)
    work.statistics = calibrator.next_block().prefix_or_full();
  equalise_block(options, work);
  if (steps.equalise) steps.equalise(work);
  const bool equalised = options.equalise.method != Equalise::kNone || steps.equalise;
  const std::span<const float> prefix = calibrator.prefix_stream();
  StreamsAfter after =
      round_in_sequence(options, gradients, {calibrator.full_stream(), prefix}, work);
  if (equalised) after.full.clear();  // the same but for rounding; a resumed job has no other way
  if (steps.reconstruct) {
    steps.reconstruct(work, calibrator);
    calibrator.advance(restore_block(source.config, work.stored, options.threads));
  } else {
    calibrator.advance(std::move(after.full), std::move(after.prefix));
  }
  return std::move(work.stored);
}

StoredBlock quantize_block(const models::SourceModel& source, const QuantizeOptions& options,
                           const BlockSteps& steps, Calibrator& calibrator) {
  CalibrationBlock block = calibrator.next_block();
  BlockAtWork work{block.layer,
                   models::layer_config(source.config, block.layer),
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

// A solve that needed more than its usual damping is worth a line.
void report_damping(const StoredBlock& block, const NoticeFn& notice) {
  if (!notice) return;
  const auto line = [&](const char* what, double rung, const StoredTensor& tensor) {
    notice(what + std::string(" raised to ") + std::to_string(rung) + " of the mean (" +
           tensor.name + ": second moments of the calibration text are not positive below)");
  };
  for (const StoredTensor& tensor : block) {
    if (tensor.report.damping_raised) line("damping", tensor.report.damping, tensor);
    if (tensor.report.shift_damping > 0)
      line("damping of the shift", tensor.report.shift_damping, tensor);
  }
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
                    const BlockSteps& steps, const Journal& journal, const CalibrationCache* cache,
                    const NoticeFn& notice, const ProgressFn& progress) {
  CalibrationOptions calibration;
  calibration.threads = options.threads;
  calibration.full = !options.prefix;
  calibration.cache = cache;
  Calibrator calibrator(source, options.calibration->windows, calibration,
                        one_stage(progress, head_share(source.config, options)));
  TokenGradients gradients;
  if (options.fit.weights == TokenWeights::kGradient)
    gradients = token_gradients(source, options.calibration->windows, options.threads, progress);
  int64_t resumed = 0;
  for (int64_t layer = 0; !calibrator.done(); ++layer) {
    std::optional<StoredBlock> block = journal.load(layer);
    const bool done = block.has_value();
    resumed += done ? 1 : 0;
    if (!done) {
      block = options.fit.sequential
                  ? quantize_in_sequence(source, options, gradients, steps, layer, calibrator)
                  : quantize_block(source, options, steps, calibrator);
      report_damping(*block, notice);
      journal.save(layer, *block);
    }
    if (options.fit.sequential && !done) continue;
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

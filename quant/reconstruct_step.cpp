#include "quant/reconstruct_step.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>

#include "models/tensors.h"
#include "quant/rounded.h"

namespace crumb::quant {
namespace {

const BlockMatrix& matrix_of(const BlockAtWork& work, const StoredTensor& stored) {
  const std::string_view suffix =
      std::string_view(stored.name).substr(models::layer_tensor(work.layer, "").size());
  const auto matrices = block_matrices();
  return *std::find_if(matrices.begin(), matrices.end(),
                       [&](const BlockMatrix& matrix) { return matrix.suffix == suffix; });
}

std::string line_of(const ReconstructReport& report) {
  char text[160];
  std::snprintf(text, sizeof text,
                "block %lld: loss of the windows kept back %.3e, after learning %.3e (%.3f x), "
                "%s, %.0f tokens/s",
                static_cast<long long>(report.layer), report.loss_start, report.loss_end,
                report.loss_end / report.loss_start, report.improved ? "learned" : "start kept",
                report.tokens_per_second);
  return text;
}

void reconstruct_block(const QuantizeOptions& options, const NoticeFn& notice,
                       const ProgressFn& progress, BlockAtWork& work, Calibrator& calibrator,
                       std::vector<ReconstructReport>* reports) {
  std::vector<StoredTensor*> tensors;
  std::vector<MatrixCodes> matrices;
  for (StoredTensor& stored : work.stored) {
    if (!stored.values.empty()) continue;
    tensors.push_back(&stored);
    matrices.push_back(
        {matrix_of(work, stored).member, stored.packed.rotation, unpack_bands(stored.packed)});
  }
  const train::BlockContext context(work.config, options.calibration->windows.S);
  ReconstructOptions chosen = options.reconstruction;
  chosen.threads = work.threads;
  reports->push_back(reconstruct(context, work.weights,
                                 {calibrator.full_stream(), calibrator.prefix_stream()}, work.layer,
                                 chosen, matrices, progress));
  if (notice) notice(line_of(reports->back()));
  if (!reports->back().improved) return;
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    tensors[i]->packed = pack_bands(matrices[i].bands, matrices[i].rotation);
    tensors[i]->report.distortion =
        measure(work.weights.*matrices[i].member, tensors[i]->packed, work.threads);
    tensors[i]->report.output_error.reset();
  }
}

}  // namespace

std::function<void(BlockAtWork&, Calibrator&)> reconstruction_step(
    const QuantizeOptions& options, const NoticeFn& notice, const ProgressFn& progress,
    std::vector<ReconstructReport>* reports) {
  return [options, notice, progress, reports](BlockAtWork& work, Calibrator& calibrator) {
    reconstruct_block(options, notice, progress, work, calibrator, reports);
  };
}

}  // namespace crumb::quant

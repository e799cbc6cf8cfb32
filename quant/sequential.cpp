#include "quant/sequential.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "models/tensors.h"
#include "quant/block_stages.h"
#include "quant/linalg.h"
#include "quant/moments.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

using train::BlockWeights;
using train::LinearInput;

std::vector<float> difference(std::span<const float> a, std::span<const float> b) {
  std::vector<float> d(a.begin(), a.end());
  for (std::size_t i = 0; i < d.size(); ++i) d[i] -= b[i];
  return d;
}

// Row t of x [tokens, K] times roots[t].
std::vector<float> scaled(std::span<const float> x, std::span<const float> roots) {
  std::vector<float> rows(x.begin(), x.end());
  const std::size_t K = x.size() / roots.size();
  for (std::size_t t = 0; t < roots.size(); ++t)
    for (std::size_t k = 0; k < K; ++k) rows[t * K + k] *= roots[t];
  return rows;
}

struct Job {
  const QuantizeOptions& options;
  const TokenGradients& gradients;
  const SequentialStreams& streams;
  BlockAtWork& block;
  train::BlockContext context;
  BlockWeights stored;  // what is rounded so far, the rest in full precision
  BlockStage prefix, full;

  bool shifts() const { return options.fit.shift != 0 || options.fit.residual != 0; }
};

models::TensorInfo info_of(const models::ModelConfig& config, const std::string& name) {
  for (models::TensorInfo& tensor : models::tensor_table(config))
    if (tensor.name == name) return std::move(tensor);
  return {};
}

// What matrices with the same input and the same weights of tokens share.
struct Shared {
  std::vector<float> roots;  // [tokens] of the weights
  std::vector<float> rows;   // x^, scaled by them
  InputStatistics statistics;
  std::vector<double> shift;  // E[(x - x^) x^^T]
};

// The stream that the matrices of an input add to, behind what is stored; empty for others.
std::span<const float> residual_of(const Job& job, LinearInput input) {
  if (input == LinearInput::kOutput) return job.streams.prefix;
  if (input == LinearInput::kDown) return job.prefix.mid;
  return {};
}
std::span<const float> full_residual_of(const Job& job, LinearInput input) {
  return input == LinearInput::kOutput ? job.streams.full : std::span<const float>(job.full.mid);
}

Shared share(const Job& job, const BlockMatrix& matrix, const std::string& name) {
  const int64_t D = job.block.config.dim;
  const int64_t tokens = std::ssize(job.streams.prefix) / D;
  const int64_t K = train::linear_input_width(job.block.config, matrix.input);
  const auto found = job.gradients.find(name);
  Shared shared;
  shared.roots = token_weights(
      job.options.fit.weights, residual_of(job, matrix.input), D,
      found == job.gradients.end() ? std::span<const float>() : found->second, tokens);
  for (float& root : shared.roots) root = std::sqrt(root);
  shared.rows = scaled(job.prefix.in, shared.roots);
  shared.statistics = second_moments(shared.rows, K,
                                     "block " + std::to_string(job.block.layer) + ", " +
                                         std::string(train::linear_input_name(matrix.input)),
                                     job.block.threads);
  if (job.options.fit.shift != 0)
    shared.shift = cross_moments(scaled(difference(job.full.in, job.prefix.in), shared.roots), K,
                                 shared.rows, K, job.block.threads);
  return shared;
}

std::vector<float> target_of(const Job& job, const BlockMatrix& matrix, const Shared& shared) {
  const std::vector<float>& w = job.block.weights.*matrix.member;
  if (!job.shifts()) return w;
  const int64_t D = job.block.config.dim, K = shared.statistics.K;
  const std::span<const float> r = residual_of(job, matrix.input);
  std::vector<double> residual;
  if (job.options.fit.residual != 0 && !r.empty())
    residual =
        cross_moments(scaled(difference(full_residual_of(job, matrix.input), r), shared.roots), D,
                      shared.rows, K, job.block.threads);
  return shifted_target(w, {shared.statistics.H, shared.shift, residual, K}, job.options.fit,
                        job.block.threads);
}

StoredTensor round_one(const Job& job, const BlockMatrix& matrix, const models::TensorInfo& tensor,
                       const Method& method, const Shared& shared,
                       std::optional<PreparedInput>* prepared) {
  const std::vector<float>& w = job.block.weights.*matrix.member;
  const int64_t N = tensor.shape[0], K = tensor.shape[1];
  const std::vector<float> target = target_of(job, matrix, shared);
  if (needs_statistics(method) && !*prepared)
    *prepared =
        prepare_input(shared.statistics.H, K, method, tensor.name + " input", job.block.threads);
  const PreparedInput* input = needs_statistics(method) ? &**prepared : nullptr;
  MatrixResult result = round_matrix(target, N, K, method, input, tensor.name, job.block.threads);
  result.report.distortion = measure(w, result.packed, job.block.threads);
  return {tensor.name, std::move(result.packed), {}, std::move(result.report)};
}

// All matrices that read `input`.
void round_input(Job& job, LinearInput input, std::map<std::string, StoredTensor>* stored) {
  const bool alone = job.options.fit.weights == TokenWeights::kGradient;
  std::optional<Shared> shared;
  std::optional<PreparedInput> prepared;
  Method prepared_for;
  for (const BlockMatrix& matrix : block_matrices()) {
    if (matrix.input != input) continue;
    const std::string name = models::layer_tensor(job.block.layer, std::string(matrix.suffix));
    const models::TensorInfo tensor = info_of(job.block.config, name);
    const Method method = method_for(job.options, tensor);
    if (method.bits == 32) continue;
    require_finite(job.block.weights.*matrix.member, tensor.shape[1], name);
    if (alone || !shared) shared = share(job, matrix, name);
    if (alone || (prepared && !prepared_alike(prepared_for, method))) prepared.reset();
    prepared_for = method;
    StoredTensor rounded = round_one(job, matrix, tensor, method, *shared, &prepared);
    job.stored.*matrix.member = restore(rounded.packed, job.block.threads);
    stored->emplace(name, std::move(rounded));
  }
}

}  // namespace

std::vector<float> shifted_target(std::span<const float> w, const ShiftMoments& moments,
                                  const BlockFit& fit, int threads) {
  const int64_t K = moments.K, N = std::ssize(w) / K;
  std::vector<float> target(w.begin(), w.end());
  std::vector<double> damped(moments.H.begin(), moments.H.end());
  double mean = 0;
  for (int64_t k = 0; k < K; ++k) mean += damped[static_cast<std::size_t>(k * K + k)];
  mean /= static_cast<double>(K);
  for (int64_t k = 0; k < K; ++k)
    damped[static_cast<std::size_t>(k * K + k)] += kShiftDamping * mean;
  if (!(mean > 0) || !upper_cholesky(damped, K, kShiftDamping * mean / 2, threads)) return target;
  constexpr int64_t kRows = 64;
  parallel_rows((N + kRows - 1) / kRows, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kRows, rows = std::min(kRows, N - first);
      const auto at = static_cast<std::size_t>(first * K),
                 size = static_cast<std::size_t>(rows * K);
      std::vector<double> sums(size);
      if (!moments.residual.empty())
        for (std::size_t i = 0; i < size; ++i) sums[i] = fit.residual * moments.residual[at + i];
      if (!moments.inputs.empty()) {
        const std::vector<double> tile_w(w.begin() + first * K, w.begin() + (first + rows) * K);
        gemm({rows, K, K}, fit.shift, tile_w.data(), K, moments.inputs.data(), K, 1.0, sums.data(),
             K);
      }
      solve_right(damped, K, sums, rows);
      for (std::size_t i = 0; i < size; ++i) target[at + i] += static_cast<float>(sums[i]);
    }
  });
  return target;
}

StreamsAfter round_in_sequence(const QuantizeOptions& options, const TokenGradients& gradients,
                               const SequentialStreams& streams, BlockAtWork& block) {
  Job job{options,
          gradients,
          streams,
          block,
          train::BlockContext(block.config, options.calibration->windows.S),
          block.weights,
          {},
          {}};
  std::map<std::string, StoredTensor> rounded;
  for (const LinearInput input : train::kLinearInputs) {
    enter_stage(job.context, job.stored, streams.prefix, input, block.threads, &job.prefix);
    if (job.shifts())
      enter_stage(job.context, block.weights, streams.full, input, block.threads, &job.full);
    round_input(job, input, &rounded);
  }
  block.stored.clear();
  for (const models::TensorInfo& tensor : models::tensor_table(block.config)) {
    if (tensor.layer != block.layer) continue;
    const auto found = rounded.find(tensor.name);
    if (found != rounded.end()) {
      block.stored.push_back(std::move(found->second));
      continue;
    }
    const std::vector<float>& values = block_tensor(block.weights, tensor);
    require_finite(values, tensor.shape.back(), tensor.name);
    block.stored.push_back({tensor.name, {}, values, {}});
  }
  StreamsAfter after;
  if (job.shifts()) after.full = leave_block(job.context, block.weights, block.threads, job.full);
  after.prefix = leave_block(job.context, job.stored, block.threads, job.prefix);
  return after;
}

}  // namespace crumb::quant

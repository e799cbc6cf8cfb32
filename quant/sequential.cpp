#include "quant/sequential.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "models/tensors.h"
#include "quant/block_stages.h"
#include "quant/moments.h"
#include "quant/shift.h"

namespace crumb::quant {
namespace {

using train::BlockWeights;
using train::LinearInput;

std::vector<float> difference(std::span<const float> a, std::span<const float> b) {
  std::vector<float> d(a.begin(), a.end());
  for (std::size_t i = 0; i < d.size(); ++i) d[i] -= b[i];
  return d;
}

// Row t of x [tokens, K] times roots[t]; no roots are ones.
void scale(std::span<const float> roots, std::span<float> x) {
  if (roots.empty()) return;
  const std::size_t K = x.size() / roots.size();
  for (std::size_t t = 0; t < roots.size(); ++t)
    for (std::size_t k = 0; k < K; ++k) x[t * K + k] *= roots[t];
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
  std::vector<float> roots;     // [tokens] of the weights; empty if all are 1
  std::vector<float> scaled;    // x^ times the roots, if there are some
  std::span<const float> rows;  // of these, or of the stage's x^
  InputStatistics statistics;
  ShiftFactor factor;         // with shifts
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

// E[(full - prefix) x^^T] of streams of n values a token.
std::vector<double> lost_moments(const Job& job, const Shared& shared, std::span<const float> full,
                                 std::span<const float> prefix, int64_t n) {
  std::vector<float> lost = difference(full, prefix);
  scale(shared.roots, lost);
  return cross_moments(lost, n, shared.rows, shared.statistics.K, job.block.threads);
}

// Moments of prefix.in and full.in, which must outlive the result.
Shared share(const Job& job, const BlockMatrix& matrix, const std::string& name) {
  const int64_t D = job.block.config.dim;
  const int64_t tokens = std::ssize(job.streams.prefix) / D;
  const int64_t K = train::linear_input_width(job.block.config, matrix.input);
  const auto found = job.gradients.find(name);
  const std::string input = "block " + std::to_string(job.block.layer) + ", " +
                            std::string(train::linear_input_name(matrix.input));
  Shared shared;
  shared.roots = token_weights(
      job.options.fit.weights, residual_of(job, matrix.input), D,
      found == job.gradients.end() ? std::span<const float>() : found->second, tokens);
  for (float& root : shared.roots) root = std::sqrt(root);
  shared.rows = job.prefix.in;
  if (std::all_of(shared.roots.begin(), shared.roots.end(), [](float r) { return r == 1; })) {
    shared.roots.clear();
  } else {
    shared.scaled = job.prefix.in;
    scale(shared.roots, shared.scaled);
    shared.rows = shared.scaled;
  }
  shared.statistics = second_moments(shared.rows, K, input, job.block.threads);
  if (!job.shifts()) return shared;
  shared.factor = shift_factor(shared.statistics.H, K, input, job.block.threads);
  if (job.options.fit.shift != 0)
    shared.shift = lost_moments(job, shared, job.full.in, job.prefix.in, K);
  return shared;
}

std::vector<float> target_of(const Job& job, const BlockMatrix& matrix, const Shared& shared) {
  const std::vector<float>& w = job.block.weights.*matrix.member;
  if (!job.shifts()) return w;
  const std::span<const float> r = residual_of(job, matrix.input);
  std::vector<double> residual;
  if (job.options.fit.residual != 0 && !r.empty())
    residual =
        lost_moments(job, shared, full_residual_of(job, matrix.input), r, job.block.config.dim);
  return shifted_target(w, shared.factor, {shared.shift, residual}, job.options.fit,
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
  if (shared.factor.raised()) result.report.shift_damping = shared.factor.damping;
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

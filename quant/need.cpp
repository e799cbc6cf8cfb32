#include "quant/need.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "models/tensors.h"
#include "quant/blas.h"
#include "quant/calibrated_job.h"
#include "quant/model_walk.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr int64_t kFloat = sizeof(float);
constexpr int64_t kDouble = sizeof(double);

// Of one matrix at work: the weights and their codes; with statistics also rotated weights, their
// values and errors; LDLQ's tile a thread.
int64_t matrix_bytes(int64_t N, int64_t K, const Method& method, int threads) {
  int64_t bytes = N * K * (kFloat + 1);
  if (needs_statistics(method))
    bytes += N * K * 3 * kFloat + 4 * K * K * kDouble;
  else if (!method.bands.empty())
    bytes += N * K * (kFloat + 1);  // rows of a width together; above, gone before errors are taken
  if (method.rounding == Rounding::kLdlq) bytes += threads * 2 * 64 * K * kDouble;
  return bytes;
}

// Of rounding one matrix and measuring its error, the factor counted with every matrix.
double matrix_operations(double N, double K, const Method& method) {
  if (!needs_statistics(method)) return 0;
  const double errors = 4 * N * K * K;
  if (method.rounding == Rounding::kNearest) return errors;
  const double ldlq = N * K * K * (1 + 4.0 * method.greedy_passes);
  const double again = 2.0 * method.trials + method.refits;  // each with its errors, in double
  return errors + K * K * K / 3 + ldlq + again * (ldlq + 4 * N * K * K);
}

// What rounding in sequence adds to a linear's share.
double sequential_operations(double tokens, double N, double K, double D, const BlockFit& fit) {
  if (!fit.sequential) return 0;
  double operations = 0;
  if (fit.weights == TokenWeights::kGradient)
    operations += tokens * (3 * 2 * N * K + K * K / 2) + K * K * K / 3;  // twice forward, once back
  if (fit.shift != 0 || fit.residual != 0)
    operations += tokens * (2 * N * K + 2 * K * K + 2 * D * K) + K * K * K / 3 + 4 * N * K * K;
  return operations;
}

// Of the walk for the tokens' gradients, in parts of 8 windows.
int64_t gradient_bytes(const models::ModelConfig& config, const CalibrationWindows& windows,
                       int threads) {
  const CalibrationMemory part =
      calibration_memory(config, std::min<int64_t>(8, windows.count()), windows.S, threads);
  return (config.layers + 2) * 8 * windows.S * config.dim * kFloat +
         config.vocab * config.dim * kFloat + 2 * part.activations;
}

// Peak of rounding in sequence, but for the head: while the widest input's moments are taken, or
// while its matrix is rounded. Of a job from the start; one that goes on where it was stopped also
// sends windows through the finished blocks.
int64_t sequential_bytes(const models::ModelConfig& config, const QuantizeOptions& options,
                         const CalibrationMemory& memory, int64_t matrix, int threads) {
  const CalibrationWindows& windows = options.calibration->windows;
  const int64_t tokens = std::ssize(windows.ids);
  const bool shifts = options.fit.shift != 0 || options.fit.residual != 0;
  const bool gradients = options.fit.weights == TokenWeights::kGradient;
  const int64_t K = std::max(config.ffn, config.heads * config.head_dim);
  const int64_t stream = tokens * config.dim * kFloat, input = tokens * K * kFloat;
  const int64_t square = K * K * kDouble;
  // Streams entering and inside the block, the inputs, their scaled copies; H.
  int64_t bytes = memory.weights + (shifts ? 4 * stream + 2 * input : 2 * stream + input) + square;
  if (options.fit.weights != TokenWeights::kEqual) bytes += input;
  if (shifts) bytes += 2 * square;  // the shift's factor and moments
  // What is lost, token by token, or what the matrix takes.
  bytes += std::max(shifts ? input : input / 2, matrix);
  if (needs_statistics(options.equalise.method) ||
      options.reconstruction.method != Reconstruction::kNone)
    bytes += memory.statistics + memory.activations;
  if (!gradients) return bytes;
  bytes += std::ssize(block_matrices()) * config.layers * tokens * kFloat;
  return std::max(bytes, gradient_bytes(config, windows, threads));
}

}  // namespace

QuantizeNeed quantize_need(const models::ModelConfig& config, const QuantizeOptions& options,
                           const BlockSteps& steps) {
  QuantizeNeed need;
  const int threads = resolve_threads(options.threads);
  const bool calibrated = needs_calibration(config, options, steps);
  const int64_t tokens = calibrated ? std::ssize(options.calibration->windows.ids) : 0;
  const bool reconstructs = options.reconstruction.method != Reconstruction::kNone;
  int64_t linear = 0, head = 0;  // bytes of the largest matrix at work
  const auto passes = options.prefix && !options.fit.sequential
                          ? 2.0
                          : 1.0;  // statistics, and the way through the result
  for (const models::TensorInfo& tensor : models::tensor_table(config)) {
    const Method method = method_for(options, tensor);
    if (method.bits == 32 && !models::may_be_quantized(tensor.role)) continue;
    const int64_t N = tensor.shape[0], K = tensor.shape[1];
    int64_t& most = tensor.role == models::TensorRole::kLinear ? linear : head;
    most = std::max(most, matrix_bytes(N, K, method, threads));
    need.bytes = std::max(linear, head);
    const auto n = static_cast<double>(N), k = static_cast<double>(K);
    need.operations += matrix_operations(n, k, method);
    if (tensor.role == models::TensorRole::kLinear)
      need.operations += static_cast<double>(tokens) * (passes * 2 * n * k + k * k / 2) +
                         sequential_operations(static_cast<double>(tokens), n, k,
                                               static_cast<double>(config.dim), options.fit);
    if (tensor.role == models::TensorRole::kLinear && reconstructs)  // targets, and the steps
      need.operations += static_cast<double>(tokens) * n * k *
                         (2 + 6 * static_cast<double>(options.reconstruction.epochs));
  }
  if (!calibrated) return need;
  const CalibrationMemory memory = calibration_memory(config, options.calibration->windows.count(),
                                                      options.calibration->windows.S, threads);
  if (options.fit.sequential) {
    const int64_t stream = tokens * config.dim * kFloat;
    need.bytes = std::max({memory.embedding + stream, head + 3 * stream,
                           sequential_bytes(config, options, memory, linear, threads)});
  } else {
    need.bytes = std::max(memory.peak(), std::max(linear, head) + memory.streams + memory.weights +
                                             memory.statistics + memory.activations);
  }
  if (reconstructs)
    need.bytes =
        std::max(need.bytes,
                 memory.streams + memory.weights + memory.statistics + memory.activations +
                     reconstruction_memory(config, options.calibration->windows.count(),
                                           options.calibration->windows.S, options.reconstruction));
  return need;
}

QuantizeNeed allocation_need(const models::ModelConfig& config, const QuantizeOptions& options,
                             const CostOptions& costs) {
  QuantizeNeed need;
  const int threads = resolve_threads(options.threads);
  const CalibrationWindows& windows = options.calibration->windows;
  const int64_t back = std::min(costs.output_windows, windows.count());
  const auto walked = static_cast<double>(back * windows.S);
  const auto tokens = static_cast<double>(windows.count() * windows.S);
  Method method = options.linear;
  method.rounding = Rounding::kLdlq;
  int64_t matrix = 0;
  for (const models::TensorInfo& tensor : models::tensor_table(config)) {
    if (tensor.role != models::TensorRole::kLinear) continue;
    const int64_t N = tensor.shape[0], K = tensor.shape[1];
    matrix = std::max(matrix, matrix_bytes(N, K, method, threads));
    const auto n = static_cast<double>(N), k = static_cast<double>(K);
    // Forward, again, and back to the inputs; then statistics and the way on.
    need.operations += walked * 6 * n * k + tokens * (2 * n * k + k * k / 2);
    need.operations += k * k * k / 3 + static_cast<double>(kWidths.size()) * 2 * n * k * k;
  }
  const int64_t head = config.vocab * config.dim;
  need.operations += walked * 4 * static_cast<double>(head);
  // Streams of all blocks and two gradients; beside them the head's rows, or a block and, for every
  // thread, its activations with their gradients.
  const int64_t stream = back * windows.S * config.dim * kFloat;
  const CalibrationMemory one = calibration_memory(config, back, windows.S, threads);
  const int64_t at_head =
      head * kFloat + threads * kHeadTokens * (config.vocab + 2 * config.dim) * kFloat;
  const int64_t walk =
      (config.layers + 3) * stream + std::max(at_head, one.weights + 2 * one.activations);
  const CalibrationMemory all = calibration_memory(config, windows.count(), windows.S, threads);
  need.bytes = std::max(
      {walk, all.peak(), matrix + all.streams + all.weights + all.statistics + all.activations});
  return need;
}

QuantizeNeed both(const QuantizeNeed& first, const QuantizeNeed& then) {
  return {std::max(first.bytes, then.bytes), first.operations + then.operations};
}

double measure_rate() {
  load_blas();
  constexpr int kSize = 384;
  const std::vector<float> a(kSize * kSize, 1.0f);
  std::vector<float> c(kSize * kSize);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  double operations = 0;
  double seconds = 0;
  while (seconds < 0.05) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kSize, kSize, kSize, 1.0f, a.data(), kSize,
                a.data(), kSize, 0.0f, c.data(), kSize);
    operations += 2.0 * kSize * kSize * kSize;
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return operations / seconds;
}

}  // namespace crumb::quant

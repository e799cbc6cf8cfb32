#include "quant/calibration.h"

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include "models/errors.h"
#include "quant/calibration_cache.h"
#include "quant/moments.h"
#include "quant/parallel.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

constexpr int64_t kWindowsPerThread = 2;  // at work between two barriers

void validate(const models::ModelConfig& config, const CalibrationWindows& windows) {
  const auto fail = [](const std::string& what, const std::string& expected, int64_t found) {
    throw Error(ExitCode::kUsage, what + " (calibration: expected " + expected + ", found " +
                                      std::to_string(found) + ")");
  };
  if (windows.S < 1 || windows.S > config.context)
    fail("window length", "1.." + std::to_string(config.context), windows.S);
  if (windows.ids.empty() || std::ssize(windows.ids) % windows.S != 0)
    fail("token ids", "whole windows of " + std::to_string(windows.S), std::ssize(windows.ids));
  for (const int32_t id : windows.ids)
    if (id < 0 || id >= config.vocab)
      fail("token id", "0.." + std::to_string(config.vocab - 1), id);
}

int64_t batch_windows(int64_t windows, int threads) {
  return std::min(windows, kWindowsPerThread * resolve_threads(threads));
}

}  // namespace

std::vector<float> embedded(const models::SourceModel& source, std::span<const int32_t> ids) {
  const int64_t D = source.config.dim;
  std::vector<float> table(static_cast<std::size_t>(source.config.vocab * D));
  source.read("model.embed_tokens", table);
  std::vector<float> x(ids.size() * static_cast<std::size_t>(D));
  for (std::size_t t = 0; t < ids.size(); ++t)
    std::copy_n(table.begin() + ids[t] * D, D, x.begin() + static_cast<int64_t>(t) * D);
  return x;
}

struct Calibrator::State {
  State(const models::SourceModel& the_source, CalibrationWindows the_windows,
        const CalibrationOptions& the_options, ProgressFn the_progress)
      : source(the_source),
        windows(std::move(the_windows)),
        options(the_options),
        progress(std::move(the_progress)),
        context(source.config, windows.S) {}

  // Sends every window of `in` through a block into `out` (may be `in`), into `sums` if not null.
  void run(const train::BlockWeights& weights, const std::vector<float>& in,
           std::vector<float>& out, MomentSums* sums);
  BlockStatistics measure(const train::BlockWeights& weights, const std::vector<float>& in,
                          std::vector<float>& out);
  BlockStatistics full_statistics(const train::BlockWeights& weights);
  void catch_up();  // the full stream up to `layer`
  void advance(const train::BlockWeights* quantized);
  void tell(int64_t done) const;

  const models::SourceModel& source;
  const CalibrationWindows windows;
  const CalibrationOptions options;
  const ProgressFn progress;
  const train::BlockContext context;
  std::vector<train::BlockActivations> activations;  // of a batch
  int64_t layer = 0;                                 // at hand
  // The full stream moves only when a block asks for it: cached ones do not.
  std::vector<float> full;       // [tokens, D] entering block `full_layer`
  std::vector<float> full_next;  // the same after that block, if full_ahead
  int64_t full_layer = 0;
  bool full_ahead = false;
  std::vector<float> prefix, prefix_next;  // entering and leaving `layer`, once the streams differ
  bool differ = false;
};

void Calibrator::State::tell(int64_t done) const {
  const std::string item = "block " + std::to_string(layer);
  const int64_t count = windows.count();
  if (progress &&
      !progress({"calibrate", item, layer * count + done, source.config.layers * count}))
    throw Interrupted{};
}

void Calibrator::State::run(const train::BlockWeights& weights, const std::vector<float>& in,
                            std::vector<float>& out, MomentSums* sums) {
  const int64_t count = windows.count(), batch = batch_windows(count, options.threads);
  while (std::ssize(activations) < batch) activations.emplace_back(source.config, windows.S);
  out.resize(in.size());
  const auto size = static_cast<std::size_t>(windows.S * source.config.dim);
  for (int64_t first = 0; first < count; first += batch) {
    tell(first);
    const int64_t n = std::min(batch, count - first);
    parallel_rows(n, options.threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const std::size_t at = static_cast<std::size_t>(first + i) * size;
        train::block_forward(context, weights, std::span(in).subspan(at, size),
                             activations[static_cast<std::size_t>(i)],
                             std::span(out).subspan(at, size));
      }
    });
    if (sums != nullptr)
      sums->add(std::span(activations).first(static_cast<std::size_t>(n)), windows.S,
                options.threads);
  }
}

BlockStatistics Calibrator::State::measure(const train::BlockWeights& weights,
                                           const std::vector<float>& in, std::vector<float>& out) {
  MomentSums sums(models::layer_config(source.config, layer));
  run(weights, in, out, &sums);
  return std::move(sums).finish(layer);
}

void Calibrator::State::catch_up() {
  if (full.empty()) full = embedded(source, windows.ids);
  for (; full_layer < layer; ++full_layer, full_ahead = false) {
    if (full_ahead)
      std::swap(full, full_next);
    else
      run(train::read_block(source, full_layer), full, full, nullptr);
  }
}

BlockStatistics Calibrator::State::full_statistics(const train::BlockWeights& weights) {
  if (options.cache != nullptr)
    if (auto cached = options.cache->load(layer)) return *std::move(cached);
  catch_up();
  BlockStatistics statistics = measure(weights, full, full_next);
  full_ahead = true;
  if (options.cache != nullptr) options.cache->save(layer, statistics);
  return statistics;
}

void Calibrator::State::advance(const train::BlockWeights* quantized) {
  if (quantized != nullptr && !differ) {
    catch_up();
    run(*quantized, full, prefix, nullptr);
    differ = true;
  } else if (quantized != nullptr) {
    run(*quantized, prefix, prefix, nullptr);
  } else if (differ && !prefix_next.empty()) {
    std::swap(prefix, prefix_next);
  } else if (differ) {
    run(train::read_block(source, layer), prefix, prefix, nullptr);
  }
  prefix_next.clear();
  ++layer;
  if (layer == source.config.layers) tell(0);
}

Calibrator::Calibrator(const models::SourceModel& source, CalibrationWindows windows,
                       const CalibrationOptions& options, ProgressFn progress) {
  validate(source.config, windows);
  train::single_threaded_blas();
  state_ = std::make_unique<State>(source, std::move(windows), options, std::move(progress));
}
Calibrator::~Calibrator() = default;

bool Calibrator::done() const { return state_->layer == state_->source.config.layers; }

CalibrationBlock Calibrator::next_block() {
  State& s = *state_;
  CalibrationBlock block;
  block.layer = s.layer;
  block.weights = train::read_block(s.source, s.layer);
  if (s.options.full || !s.differ) block.full = s.full_statistics(block.weights);
  if (s.differ) block.prefix = s.measure(block.weights, s.prefix, s.prefix_next);
  return block;
}

void Calibrator::advance(const train::BlockWeights& quantized) { state_->advance(&quantized); }
void Calibrator::advance() { state_->advance(nullptr); }
void Calibrator::advance(std::vector<float> full, std::vector<float> prefix) {
  State& s = *state_;
  assert(full.empty() || full.size() == prefix.size());
  s.catch_up();
  s.tell(0);
  s.prefix = std::move(prefix);
  s.differ = true;
  ++s.layer;
  if (!full.empty()) {
    s.full = std::move(full);
    s.full_ahead = false;
    s.full_layer = s.layer;
  }
  s.prefix_next.clear();
  if (s.layer == s.source.config.layers) s.tell(0);
}

std::span<const float> Calibrator::full_stream() {
  state_->catch_up();
  return state_->full;
}
std::span<const float> Calibrator::prefix_stream() {
  return state_->differ ? std::span<const float>(state_->prefix) : full_stream();
}

int64_t CalibrationMemory::peak() const {
  return streams + std::max(embedding, weights + activations + statistics);
}

CalibrationMemory calibration_memory(const models::ModelConfig& config, int64_t windows, int64_t S,
                                     int threads) {
  constexpr int64_t kFloat = sizeof(float);
  CalibrationMemory memory;
  memory.embedding = config.vocab * config.dim * kFloat;
  memory.streams = 4 * windows * S * config.dim * kFloat;  // both, before and after the block
  int64_t floats = 2 * config.dim + 3 * config.ffn * config.dim +
                   2 * (config.heads + config.kv_heads) * config.head_dim * config.dim;
  if (config.qkv_bias) floats += (config.heads + 2 * config.kv_heads) * config.head_dim;
  memory.weights = 2 * floats * kFloat;
  memory.activations =
      batch_windows(windows, threads) * S * train::activation_floats(config) * kFloat;
  for (const train::LinearInput input : train::kLinearInputs) {
    const int64_t K = train::linear_input_width(config, input);
    memory.statistics += 2 * (K * K * static_cast<int64_t>(sizeof(double)) + 4 * K * kFloat);
  }
  return memory;
}

}  // namespace crumb::quant

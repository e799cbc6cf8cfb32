#include "quant/model_walk.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "models/errors.h"
#include "quant/parallel.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

// Uniform in [0, 1) from (seed, index): SplitMix64 as in models/checkpoint.cpp.
double uniform(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

// z [V] -> softmax(z) - onehot(label), the label drawn at u of the distribution.
int32_t softmax_minus_label(std::span<float> z, double u) {
  const float top = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (float& value : z) {
    value = std::exp(value - top);
    sum += static_cast<double>(value);
  }
  double below = 0;
  std::size_t label = 0;
  // The last value is the label if rounding leaves u above all sums.
  for (; label + 1 < z.size(); ++label) {
    below += static_cast<double>(z[label]);
    if (below > u * sum) break;
  }
  const auto inverse = static_cast<float>(1 / sum);
  for (float& value : z) value *= inverse;
  z[label] -= 1;
  return static_cast<int32_t>(label);
}

}  // namespace

ModelWalk::ModelWalk(const models::SourceModel& source, const CalibrationWindows& windows,
                     int64_t most_windows, int threads, const ProgressFn& progress,
                     const char* stage)
    : source_(source),
      context_(source.config, windows.S),
      windows_(std::min(windows.count(), most_windows)),
      threads_(threads),
      progress_(progress),
      stage_(stage) {
  if (windows_ < 1)
    throw Error(ExitCode::kUsage,
                std::string("no calibration windows (") + stage + ": expected at least 1)");
  train::single_threaded_blas();
  streams_.push_back(embedded(
      source, std::span(windows.ids).first(static_cast<std::size_t>(windows_ * windows.S))));
}

void ModelWalk::tell(int64_t done) const {
  const int64_t layers = source_.config.layers;
  const std::string item =
      "block " + std::to_string(done < layers ? done : std::max<int64_t>(2 * layers - done - 1, 0));
  if (progress_ && !progress_({stage_, item, done, 2 * layers})) throw Interrupted{};
}

void ModelWalk::forward() {
  for (int64_t layer = 0; layer < source_.config.layers; ++layer) {
    tell(layer);
    const train::BlockWeights weights = train::read_block(source_, layer);
    const std::vector<float>& in = streams_.back();
    std::vector<float> out(in.size());
    parallel_rows(windows_, threads_, [&](int64_t begin, int64_t end) {
      train::BlockActivations activations(source_.config, context_.S());
      for (int64_t i = begin; i < end; ++i) {
        const std::size_t at = static_cast<std::size_t>(i) * window_size();
        train::block_forward(context_, weights, std::span(in).subspan(at, window_size()),
                             activations, std::span(out).subspan(at, window_size()));
      }
    });
    streams_.push_back(std::move(out));
  }
}

std::vector<float> ModelWalk::head_gradient(uint64_t seed, std::vector<int32_t>* labels) const {
  const models::ModelConfig& config = source_.config;
  const auto D = static_cast<std::size_t>(config.dim), V = static_cast<std::size_t>(config.vocab);
  std::vector<float> head(V * D), gain(D);
  source_.read(config.tied_head ? "model.embed_tokens" : "lm_head", head);
  source_.read("model.norm.weight", gain);
  const std::vector<float>& x = streams_.back();
  std::vector<float> dx(x.size());
  const int64_t tokens = std::ssize(x) / config.dim;
  labels->resize(static_cast<std::size_t>(tokens));
  const int64_t chunks = (tokens + kHeadTokens - 1) / kHeadTokens;
  parallel_rows(chunks, threads_, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const auto first = static_cast<std::size_t>(chunk * kHeadTokens);
      const auto n = static_cast<std::size_t>(std::min(kHeadTokens, tokens - chunk * kHeadTokens));
      const auto in = std::span(x).subspan(first * D, n * D);
      std::vector<float> normed(n * D), z(n * V), dnormed(n * D);
      train::rmsnorm(in, gain, config.norm_eps, normed);
      train::linear(normed, head, {}, config.dim, z);
      for (std::size_t t = 0; t < n; ++t)
        (*labels)[first + t] =
            softmax_minus_label(std::span(z).subspan(t * V, V), uniform(seed, first + t));
      train::linear_backward(normed, head, config.dim, z, {dnormed, {}, {}});
      train::rmsnorm_backward(in, gain, config.norm_eps, dnormed,
                              std::span(dx).subspan(first * D, n * D), {});
    }
  });
  return dx;
}

void ModelWalk::backward(std::vector<float> dy, bool weight_gradients,
                         const std::function<void(const WindowBack&)>& visit,
                         const std::function<void(int64_t layer)>& after) const {
  const models::ModelConfig& config = source_.config;
  const int64_t layers = config.layers;
  const std::size_t size = window_size();
  for (int64_t layer = layers - 1; layer >= 0; --layer) {
    tell(2 * layers - 1 - layer);
    const train::BlockWeights weights = train::read_block(source_, layer);
    const std::vector<float>& all = streams_[static_cast<std::size_t>(layer)];
    parallel_rows(windows_, threads_, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const std::size_t at = static_cast<std::size_t>(i) * size;
        const auto x = std::span(all).subspan(at, size);
        const auto below = std::span(dy).subspan(at, size);
        train::BlockActivations activations(config, S()), d(config, S());
        std::vector<float> y(size);
        const std::vector<float> above(below.begin(), below.end());
        train::BlockWeights gradients =
            weight_gradients ? train::zero_block(config, layer) : train::BlockWeights{};
        train::block_forward(context_, weights, x, activations, y);
        train::block_backward(context_, weights, x, activations, above, d, gradients, below);
        visit({layer, i, weights, activations, d, above, gradients});
      }
    });
    after(layer);
  }
}

}  // namespace crumb::quant

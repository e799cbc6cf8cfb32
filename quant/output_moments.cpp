#include "quant/output_moments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string_view>
#include <utility>

#include "models/errors.h"
#include "models/tensors.h"
#include "quant/parallel.h"
#include "quant/train/block.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

// A matrix's output gradient among those of the block; o and down add to the residual stream, whose
// gradients are d.mid and dy.
struct OutputGradient {
  std::string_view suffix;
  std::vector<float> train::BlockActivations::*member;  // null: dy
};
using Activations = train::BlockActivations;
constexpr std::array<OutputGradient, 7> kOutputs = {{{"self_attn.q_proj", &Activations::q},
                                                     {"self_attn.k_proj", &Activations::k},
                                                     {"self_attn.v_proj", &Activations::v},
                                                     {"self_attn.o_proj", &Activations::mid},
                                                     {"mlp.gate_proj", &Activations::gate},
                                                     {"mlp.up_proj", &Activations::up},
                                                     {"mlp.down_proj", nullptr}}};

// Uniform in [0, 1) from (seed, index): SplitMix64 as in models/checkpoint.cpp.
double uniform(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

struct Walk {
  const models::SourceModel& source;
  train::BlockContext context;
  int64_t windows;
  int threads;
  const ProgressFn& progress;
  std::vector<std::vector<float>> streams;  // [layers + 1] of [tokens, D], entering each block

  int64_t D() const { return source.config.dim; }
  std::size_t window_size() const { return static_cast<std::size_t>(context.S() * D()); }
  void tell(int64_t done) const {
    const int64_t layers = source.config.layers;
    const std::string item =
        "block " +
        std::to_string(done < layers ? done : std::max<int64_t>(2 * layers - done - 1, 0));
    if (progress && !progress({"sensitivity", item, done, 2 * layers})) throw Interrupted{};
  }
};

std::vector<float> embed(const models::SourceModel& source, std::span<const int32_t> ids) {
  const int64_t D = source.config.dim;
  std::vector<float> table(static_cast<std::size_t>(source.config.vocab * D));
  source.read("model.embed_tokens", table);
  std::vector<float> x;
  x.reserve(ids.size() * static_cast<std::size_t>(D));
  for (const int32_t id : ids)
    x.insert(x.end(), table.begin() + id * D, table.begin() + (id + 1) * D);
  return x;
}

void forward(Walk* walk) {
  for (int64_t layer = 0; layer < walk->source.config.layers; ++layer) {
    walk->tell(layer);
    const train::BlockWeights weights = train::read_block(walk->source, layer);
    const std::vector<float>& in = walk->streams.back();
    std::vector<float> out(in.size());
    parallel_rows(walk->windows, walk->threads, [&](int64_t begin, int64_t end) {
      Activations activations(walk->source.config, walk->context.S());
      for (int64_t i = begin; i < end; ++i) {
        const std::size_t at = static_cast<std::size_t>(i) * walk->window_size();
        train::block_forward(walk->context, weights, std::span(in).subspan(at, walk->window_size()),
                             activations, std::span(out).subspan(at, walk->window_size()));
      }
    });
    walk->streams.push_back(std::move(out));
  }
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

// The gradient entering the last block from above, [tokens, D].
std::vector<float> head_gradient(const Walk& walk, uint64_t seed, std::vector<int32_t>* labels) {
  const models::ModelConfig& config = walk.source.config;
  const auto D = static_cast<std::size_t>(config.dim), V = static_cast<std::size_t>(config.vocab);
  std::vector<float> head(V * D), gain(D);
  walk.source.read(config.tied_head ? "model.embed_tokens" : "lm_head", head);
  walk.source.read("model.norm.weight", gain);
  const std::vector<float>& x = walk.streams.back();
  std::vector<float> dx(x.size());
  const int64_t tokens = std::ssize(x) / config.dim;
  labels->resize(static_cast<std::size_t>(tokens));
  const int64_t chunks = (tokens + kHeadTokens - 1) / kHeadTokens;
  parallel_rows(chunks, walk.threads, [&](int64_t begin, int64_t end) {
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

// sums[r] += sum_t g[t, r]^2.
void add_squares(std::span<const float> g, std::vector<double>* sums) {
  for (std::size_t t = 0; t < g.size(); t += sums->size())
    for (std::size_t r = 0; r < sums->size(); ++r)
      (*sums)[r] += static_cast<double>(g[t + r]) * static_cast<double>(g[t + r]);
}

// [tokens]: the squares of every token's gradient [rows], summed.
std::vector<float> token_squares(std::span<const float> g, std::size_t rows) {
  std::vector<float> squares;
  for (std::size_t t = 0; t < g.size(); t += rows) {
    const auto row = g.subspan(t, rows);
    squares.push_back(std::inner_product(row.begin(), row.end(), row.begin(), 0.0f));
  }
  return squares;
}

// Of one window, by output.
struct WindowSums {
  std::array<std::vector<double>, kOutputs.size()> rows;
  std::array<std::vector<float>, kOutputs.size()> tokens;
};

// One window through one block, down into dy; the squares of its output gradients.
WindowSums window_back(const Walk& walk, const train::BlockWeights& weights,
                       std::span<const float> x, std::span<float> dy) {
  const models::ModelConfig& config = walk.source.config;
  const int64_t S = walk.context.S();
  Activations activations(config, S), d(config, S);
  std::vector<float> y(x.size());
  const std::vector<float> above(dy.begin(), dy.end());
  train::BlockWeights none;  // gradients of the weights are not wanted
  train::block_forward(walk.context, weights, x, activations, y);
  train::block_backward(walk.context, weights, x, activations, above, d, none, dy);
  WindowSums sums;
  for (std::size_t i = 0; i < kOutputs.size(); ++i) {
    const std::vector<float>& g = kOutputs[i].member == nullptr ? above : d.*kOutputs[i].member;
    sums.rows[i].resize(g.size() / static_cast<std::size_t>(S));
    add_squares(g, &sums.rows[i]);
    sums.tokens[i] = token_squares(g, sums.rows[i].size());
  }
  return sums;
}

void keep_means(const WindowSums& sums, int64_t layer, int64_t tokens, OutputMoments* out) {
  for (std::size_t i = 0; i < kOutputs.size(); ++i) {
    const std::string name = models::layer_tensor(layer, std::string(kOutputs[i].suffix));
    out->tokens[name] = sums.tokens[i];
    auto& rows = out->rows[name];
    for (const double sum : sums.rows[i]) {
      if (!std::isfinite(sum))
        throw Error(ExitCode::kNumeric,
                    "gradient is not finite (sensitivity: output of '" + name + "')");
      rows.push_back(static_cast<float>(sum / static_cast<double>(tokens)));
    }
  }
}

void backward(const Walk& walk, std::vector<float>* dy, OutputMoments* out) {
  const int64_t layers = walk.source.config.layers;
  const std::size_t size = walk.window_size();
  for (int64_t layer = layers - 1; layer >= 0; --layer) {
    walk.tell(2 * layers - 1 - layer);
    const train::BlockWeights weights = train::read_block(walk.source, layer);
    const std::vector<float>& x = walk.streams[static_cast<std::size_t>(layer)];
    std::vector<WindowSums> each(static_cast<std::size_t>(walk.windows));
    parallel_rows(walk.windows, walk.threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto at = static_cast<std::size_t>(i);
        each[at] = window_back(walk, weights, std::span(x).subspan(at * size, size),
                               std::span(*dy).subspan(at * size, size));
      }
    });
    WindowSums total = std::move(each.front());
    for (std::size_t m = 0; m < kOutputs.size(); ++m)
      for (std::size_t i = 1; i < each.size(); ++i) {  // in their order, whatever the threads
        for (std::size_t r = 0; r < total.rows[m].size(); ++r)
          total.rows[m][r] += each[i].rows[m][r];
        total.tokens[m].insert(total.tokens[m].end(), each[i].tokens[m].begin(),
                               each[i].tokens[m].end());
      }
    keep_means(total, layer, walk.windows * walk.context.S(), out);
  }
}

}  // namespace

OutputMoments output_moments(const models::SourceModel& source, const CalibrationWindows& windows,
                             int64_t most_windows, uint64_t seed, int threads,
                             const ProgressFn& progress) {
  const int64_t count = std::min(windows.count(), most_windows);
  if (count < 1)
    throw Error(ExitCode::kUsage, "no calibration windows (sensitivity: expected at least 1)");
  train::single_threaded_blas();
  Walk walk{source, train::BlockContext(source.config, windows.S), count, threads, progress, {}};
  walk.streams.push_back(
      embed(source, std::span(windows.ids).first(static_cast<std::size_t>(count * windows.S))));
  forward(&walk);
  OutputMoments out;
  std::vector<float> dy = head_gradient(walk, seed, &out.labels);
  backward(walk, &dy, &out);
  walk.tell(2 * source.config.layers);
  return out;
}

}  // namespace crumb::quant

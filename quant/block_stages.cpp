#include "quant/block_stages.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <utility>

#include "quant/parallel.h"
#include "quant/train/attention.h"
#include "quant/train/ops.h"

namespace crumb::quant {
namespace {

using train::BlockWeights;
using train::LinearInput;

// Window i of [tokens, n].
template <class T>
std::span<T> window(std::span<T> values, int64_t i, int64_t count) {
  const std::size_t size = values.size() / static_cast<std::size_t>(count);
  return values.subspan(static_cast<std::size_t>(i) * size, size);
}

void add(std::span<float> to, std::span<const float> from) {
  std::transform(to.begin(), to.end(), from.begin(), to.begin(), std::plus<>());
}

// What a step reads and writes of one window.
struct Step {
  const train::BlockContext& context;
  const BlockWeights& weights;
  std::span<const float> x, in;
  std::span<float> mid, out;
};

void attend(const Step& step) {
  const models::ModelConfig& c = step.context.config();
  const train::BlockShape shape = train::shape_of(c, step.weights);
  const auto S = static_cast<std::size_t>(step.context.S());
  const auto rows = [&](int64_t n) { return std::vector<float>(S * static_cast<std::size_t>(n)); };
  auto q = rows(shape.H * shape.Dh), k = rows(shape.Hk * shape.Dh), v = k;
  auto lse = rows(shape.H);
  train::linear(step.in, step.weights.q, step.weights.q_bias, c.dim, q);
  train::linear(step.in, step.weights.k, step.weights.k_bias, c.dim, k);
  train::linear(step.in, step.weights.v, step.weights.v_bias, c.dim, v);
  train::rope(q, c.head_dim, step.context.cos(), step.context.sin());
  train::rope(k, c.head_dim, step.context.cos(), step.context.sin());
  train::attention({step.context.S(), shape.H, shape.Hk, shape.Dh}, {q, k, v}, step.out, lse);
}

void take(LinearInput input, const Step& step) {
  const models::ModelConfig& c = step.context.config();
  switch (input) {
    case LinearInput::kAttention:
      return train::rmsnorm(step.x, step.weights.attn_norm, c.norm_eps, step.out);
    case LinearInput::kOutput:
      return attend(step);
    case LinearInput::kMlp:
      train::linear(step.in, step.weights.o, {}, std::ssize(step.weights.o) / c.dim, step.mid);
      add(step.mid, step.x);
      return train::rmsnorm(step.mid, step.weights.mlp_norm, c.norm_eps, step.out);
    case LinearInput::kDown:
      break;
  }
  std::vector<float> gate(step.out.size()), up(step.out.size());
  train::linear(step.in, step.weights.gate, {}, c.dim, gate);
  train::linear(step.in, step.weights.up, {}, c.dim, up);
  train::silu_mul(gate, up, step.out);
}

}  // namespace

void enter_stage(const train::BlockContext& context, const BlockWeights& weights,
                 std::span<const float> x, LinearInput input, int threads, BlockStage* stage) {
  const models::ModelConfig& config = context.config();
  const int64_t tokens = std::ssize(x) / config.dim, count = tokens / context.S();
  assert(count * context.S() * config.dim == std::ssize(x));
  std::vector<float> out(static_cast<std::size_t>(
      tokens * train::linear_input_width(shape_of(config, weights), input)));
  if (input == LinearInput::kMlp) stage->mid.resize(x.size());
  parallel_rows(count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      take(input, {context, weights, window(x, i, count),
                   window(std::span<const float>(stage->in), i, count),
                   window(std::span(stage->mid), i, count), window(std::span(out), i, count)});
  });
  stage->in = std::move(out);
}

std::vector<float> leave_block(const train::BlockContext& context, const BlockWeights& weights,
                               int threads, const BlockStage& stage) {
  const models::ModelConfig& config = context.config();
  std::vector<float> y(stage.mid.size());
  const int64_t count = std::ssize(y) / config.dim / context.S();
  parallel_rows(count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto out = window(std::span(y), i, count);
      train::linear(window(std::span<const float>(stage.in), i, count), weights.down, {},
                    std::ssize(weights.down) / config.dim, out);
      add(out, window(std::span<const float>(stage.mid), i, count));
    }
  });
  return y;
}

}  // namespace crumb::quant

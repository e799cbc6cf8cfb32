#include "quant/train/block.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <string>

#include "models/tensors.h"
#include "quant/train/attention.h"
#include "quant/train/ops.h"

namespace crumb::quant::train {
namespace {

constexpr BlockTensor kTensors[] = {
    {"input_layernorm.weight", &BlockWeights::attn_norm},
    {"self_attn.q_proj", &BlockWeights::q},
    {"self_attn.q_proj.bias", &BlockWeights::q_bias},
    {"self_attn.k_proj", &BlockWeights::k},
    {"self_attn.k_proj.bias", &BlockWeights::k_bias},
    {"self_attn.v_proj", &BlockWeights::v},
    {"self_attn.v_proj.bias", &BlockWeights::v_bias},
    {"self_attn.o_proj", &BlockWeights::o},
    {"post_attention_layernorm.weight", &BlockWeights::mlp_norm},
    {"mlp.gate_proj", &BlockWeights::gate},
    {"mlp.up_proj", &BlockWeights::up},
    {"mlp.down_proj", &BlockWeights::down},
    {"self_attn.q_norm.weight", &BlockWeights::q_norm},
    {"self_attn.k_norm.weight", &BlockWeights::k_norm},
    {"attention_output_layernorm.weight", &BlockWeights::o_norm},
    {"mlp_output_layernorm.weight", &BlockWeights::down_norm},
};

// In the order of LinearInput.
constexpr struct {
  std::string_view name;
  std::vector<float> BlockActivations::*member;
} kInputs[] = {
    {"attn_in", &BlockActivations::attn_in},
    {"o_in", &BlockActivations::o_in},
    {"mlp_in", &BlockActivations::mlp_in},
    {"down_in", &BlockActivations::down_in},
};

// Members of BlockActivations and their floats a token.
struct ActivationSize {
  std::vector<float> BlockActivations::*member;
  int64_t floats;
};
std::array<ActivationSize, 11> activation_sizes(const BlockShape& c) {
  using A = BlockActivations;
  const int64_t q = c.H * c.Dh, kv = c.Hk * c.Dh;
  return {{{&A::attn_in, c.D},
           {&A::q, q},
           {&A::k, kv},
           {&A::v, kv},
           {&A::lse, c.H},
           {&A::o_in, q},
           {&A::mid, c.D},
           {&A::mlp_in, c.D},
           {&A::gate, c.F},
           {&A::up, c.F},
           {&A::down_in, c.F}}};
}

// Calls work(tensor, name, elements) for every tensor of the block that the model has.
template <class Work>
void for_tensors(const models::ModelConfig& config, int64_t layer, const Work& work) {
  const std::string prefix = models::layer_tensor(layer, "");
  for (const models::TensorInfo& info : models::tensor_table(config)) {
    if (info.layer != layer) continue;
    for (const BlockTensor& tensor : kTensors)
      if (info.name == prefix + std::string(tensor.suffix))
        work(tensor, info.name, models::weights_of(info));
  }
}

void add(std::span<float> to, std::span<const float> from) {
  std::transform(to.begin(), to.end(), from.begin(), to.begin(), std::plus<>());
}

// What the linears read: the input, or its quantized form in `buffer`.
std::span<const float> seen(const BlockInputs* inputs, LinearInput input,
                            const std::vector<float>& value, std::vector<float>& buffer) {
  if (inputs == nullptr) return value;
  buffer.resize(value.size());
  quantize_input(inputs->quant[static_cast<std::size_t>(input)], value, buffer);
  return buffer;
}

AttentionShape attention_shape(const BlockContext& c, const BlockShape& shape) {
  return {c.S(), shape.H, shape.Hk, shape.Dh};
}

}  // namespace

std::span<const BlockTensor> block_tensors() { return kTensors; }

BlockWeights read_block(const models::SourceModel& source, int64_t layer) {
  BlockWeights weights;
  for_tensors(source.config, layer,
              [&](const BlockTensor& tensor, const std::string& name, int64_t n) {
                auto& values = weights.*tensor.member;
                values.resize(static_cast<std::size_t>(n));
                source.read(name, values);
              });
  return weights;
}

BlockShape shape_of(const models::ModelConfig& c) {
  return {c.dim, c.head_dim, c.heads, c.kv_heads, c.ffn};
}

BlockShape shape_of(const models::ModelConfig& c, const BlockWeights& w) {
  const int64_t head = c.dim * c.head_dim;
  return {c.dim, c.head_dim, std::ssize(w.q) / head, std::ssize(w.k) / head,
          std::ssize(w.gate) / c.dim};
}

BlockWeights zero_block(const models::ModelConfig& config, int64_t layer) {
  BlockWeights weights;
  for_tensors(config, layer, [&](const BlockTensor& tensor, const std::string&, int64_t n) {
    (weights.*tensor.member).assign(static_cast<std::size_t>(n), 0.0f);
  });
  return weights;
}

std::string_view linear_input_name(LinearInput input) {
  return kInputs[static_cast<std::size_t>(input)].name;
}

int64_t linear_input_width(const models::ModelConfig& config, LinearInput input) {
  return linear_input_width(shape_of(config), input);
}

int64_t linear_input_width(const BlockShape& shape, LinearInput input) {
  const auto member = kInputs[static_cast<std::size_t>(input)].member;
  for (const ActivationSize& size : activation_sizes(shape))
    if (size.member == member) return size.floats;
  return 0;
}

BlockActivations::BlockActivations(const models::ModelConfig& config, int64_t S) {
  resize(shape_of(config), S);
}

void BlockActivations::resize(const BlockShape& shape, int64_t S) {
  for (const ActivationSize& size : activation_sizes(shape))
    (this->*size.member).resize(static_cast<std::size_t>(S * size.floats));
}

void BlockActivations::clear() {
  for (const ActivationSize& size : activation_sizes({}))
    std::fill((this->*size.member).begin(), (this->*size.member).end(), 0.0f);
}

std::span<const float> linear_input(const BlockActivations& activations, LinearInput input) {
  return activations.*kInputs[static_cast<std::size_t>(input)].member;
}

int64_t activation_floats(const models::ModelConfig& config) {
  int64_t sum = 0;
  for (const ActivationSize& size : activation_sizes(shape_of(config))) sum += size.floats;
  return sum;
}

BlockContext::BlockContext(const models::ModelConfig& config, int64_t S)
    : config_(config), S_(S), rope_(config, S) {
  models::require_plain_block(config, "calibration or training");
  rope_.extend(S);
}
std::span<const float> BlockContext::cos() const {
  return {rope_.cos(0), static_cast<std::size_t>(S_ * config_.head_dim / 2)};
}
std::span<const float> BlockContext::sin() const {
  return {rope_.sin(0), static_cast<std::size_t>(S_ * config_.head_dim / 2)};
}

void block_forward(const BlockContext& context, const BlockWeights& w, std::span<const float> x,
                   BlockActivations& a, std::span<float> y, const BlockInputs* inputs) {
  const models::ModelConfig& c = context.config();
  const BlockShape shape = shape_of(c, w);
  assert(std::ssize(x) == context.S() * c.dim && y.size() == x.size());
  a.resize(shape, context.S());
  std::vector<float> buffer;
  rmsnorm(x, w.attn_norm, c.norm_eps, a.attn_in);
  const auto attn_in = seen(inputs, LinearInput::kAttention, a.attn_in, buffer);
  linear(attn_in, w.q, w.q_bias, c.dim, a.q);
  linear(attn_in, w.k, w.k_bias, c.dim, a.k);
  linear(attn_in, w.v, w.v_bias, c.dim, a.v);
  rope(a.q, c.head_dim, context.cos(), context.sin());
  rope(a.k, c.head_dim, context.cos(), context.sin());
  attention(attention_shape(context, shape), {a.q, a.k, a.v}, a.o_in, a.lse);
  linear(seen(inputs, LinearInput::kOutput, a.o_in, buffer), w.o, {}, shape.H * shape.Dh, a.mid);
  add(a.mid, x);
  rmsnorm(a.mid, w.mlp_norm, c.norm_eps, a.mlp_in);
  const auto mlp_in = seen(inputs, LinearInput::kMlp, a.mlp_in, buffer);
  linear(mlp_in, w.gate, {}, c.dim, a.gate);
  linear(mlp_in, w.up, {}, c.dim, a.up);
  silu_mul(a.gate, a.up, a.down_in);
  linear(seen(inputs, LinearInput::kDown, a.down_in, buffer), w.down, {}, shape.F, y);
  add(y, a.mid);
}

void block_backward(const BlockContext& context, const BlockWeights& w, std::span<const float> x,
                    const BlockActivations& a, std::span<const float> dy, BlockActivations& d,
                    BlockWeights& g, std::span<float> dx, BlockInputs* inputs) {
  const models::ModelConfig& c = context.config();
  const BlockShape shape = shape_of(c, w);
  const int64_t q_width = shape.H * shape.Dh;
  std::vector<float> buffer;
  const auto through = [&](LinearInput input, const std::vector<float>& value,
                           std::vector<float>& gradient) {
    if (inputs == nullptr) return;
    const auto i = static_cast<std::size_t>(input);
    inputs->d_log_alpha[i] += quantize_input_backward(inputs->quant[i], value, gradient);
  };
  d.resize(shape, context.S());
  d.clear();
  std::copy(dy.begin(), dy.end(), d.mid.begin());
  linear_backward(seen(inputs, LinearInput::kDown, a.down_in, buffer), w.down, shape.F, dy,
                  {d.down_in, g.down, {}});
  through(LinearInput::kDown, a.down_in, d.down_in);
  silu_mul_backward(a.gate, a.up, d.down_in, d.gate, d.up);
  const auto mlp_in = seen(inputs, LinearInput::kMlp, a.mlp_in, buffer);
  linear_backward(mlp_in, w.gate, c.dim, d.gate, {d.mlp_in, g.gate, {}});
  linear_backward(mlp_in, w.up, c.dim, d.up, {d.mlp_in, g.up, {}});
  through(LinearInput::kMlp, a.mlp_in, d.mlp_in);
  rmsnorm_backward(a.mid, w.mlp_norm, c.norm_eps, d.mlp_in, d.mid, g.mlp_norm);
  linear_backward(seen(inputs, LinearInput::kOutput, a.o_in, buffer), w.o, q_width, d.mid,
                  {d.o_in, g.o, {}});
  through(LinearInput::kOutput, a.o_in, d.o_in);
  attention_backward(attention_shape(context, shape), {a.q, a.k, a.v}, a.o_in, a.lse, d.o_in,
                     {d.q, d.k, d.v});
  rope_backward(d.q, c.head_dim, context.cos(), context.sin());
  rope_backward(d.k, c.head_dim, context.cos(), context.sin());
  const auto d_in = dx.empty() ? std::span<float>() : std::span(d.attn_in);
  const auto attn_in = seen(inputs, LinearInput::kAttention, a.attn_in, buffer);
  linear_backward(attn_in, w.q, c.dim, d.q, {d_in, g.q, g.q_bias});
  linear_backward(attn_in, w.k, c.dim, d.k, {d_in, g.k, g.k_bias});
  linear_backward(attn_in, w.v, c.dim, d.v, {d_in, g.v, g.v_bias});
  if (dx.empty()) return;
  through(LinearInput::kAttention, a.attn_in, d.attn_in);
  std::copy(d.mid.begin(), d.mid.end(), dx.begin());
  rmsnorm_backward(x, w.attn_norm, c.norm_eps, d.attn_in, dx, g.attn_norm);
}

}  // namespace crumb::quant::train

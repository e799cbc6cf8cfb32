#include "quant/train/cuda/network.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "models/errors.h"

namespace crumb::quant::train::cuda {

RopeAngles rope_angles(const models::ModelConfig& config, int64_t positions) {
  const int64_t half = config.head_dim / 2;
  RopeAngles angles;
  for (int64_t t = 0; t < positions; ++t)
    for (int64_t i = 0; i < half; ++i) {
      const double frequency =
          std::pow(static_cast<double>(config.rope_theta),
                   -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
      angles.cos.push_back(static_cast<float>(std::cos(static_cast<double>(t) * frequency)));
      angles.sin.push_back(static_cast<float>(std::sin(static_cast<double>(t) * frequency)));
    }
  return angles;
}

void require_supported(const models::ModelConfig& c) {
  const auto refuse = [](const std::string& field, const std::string& expected, int64_t found) {
    throw Error(ExitCode::kUsage, "model not supported on the GPU (" + field + ": expected " +
                                      expected + ", found " + std::to_string(found) + ")");
  };
  models::require_whole(c, "training on a GPU");
  models::require_blind(c, "training on a GPU");
  if (c.head_dim != 64 && c.head_dim != 128) refuse("head_dim", "64 or 128", c.head_dim);
  if (c.dim % 64 != 0 || c.dim > kMaxNormWidth) refuse("dim", "a multiple of 64", c.dim);
  if (c.ffn % 64 != 0) refuse("ffn", "a multiple of 64", c.ffn);
  if (c.vocab % 4 != 0) refuse("vocab", "a multiple of 4", c.vocab);
}

LayerActivations::LayerActivations(const models::ModelConfig& c, int64_t B, int64_t S)
    : x(B * S * c.dim),
      mid(B * S * c.dim),
      lse(B * S * c.heads),
      attn_in(B * S * c.dim),
      qkv(B * S * (c.heads + 2 * c.kv_heads) * c.head_dim),
      o_in(B * S * c.heads * c.head_dim),
      mlp_in(B * S * c.dim),
      gate_up(B * S * 2 * c.ffn),
      down_in(B * S * c.ffn) {}

GradientScratch::GradientScratch(const models::ModelConfig& c, int64_t B, int64_t S)
    : residual(B * S * c.dim),
      dots(B * S * c.heads),
      partial(kNormBlocks * std::max(c.dim, (c.heads + 2 * c.kv_heads) * c.head_dim)),
      rounded(B * S * c.dim),
      normed(B * S * c.dim),
      o_in(B * S * c.heads * c.head_dim),
      qkv(B * S * (c.heads + 2 * c.kv_heads) * c.head_dim),
      gate_up(B * S * 2 * c.ffn),
      down_in(B * S * c.ffn) {}

Network::Network(const models::ModelConfig& config, int64_t B, int64_t S, cudaStream_t stream,
                 int tune)
    : config_(config),
      size_{B, S, config.heads, config.kv_heads, config.head_dim},
      stream_(stream),
      gemm_(stream, tune) {
  require_supported(config);
  if (S % 64 != 0 || S <= 0)
    throw Error(ExitCode::kUsage,
                "window length (expected a multiple of 64, found " + std::to_string(S) + ")");
  const RopeAngles angles = rope_angles(config, S);
  cos_ = DeviceArray<float>(std::span(angles.cos));
  sin_ = DeviceArray<float>(std::span(angles.sin));
}

void Network::forward(const Weights& w, const int32_t* ids, std::vector<LayerActivations>& kept,
                      float* last, bf16* hidden, const ImageRows* image) {
  const int64_t D = config_.dim;
  const auto of = [&](std::size_t l) -> LayerActivations& {
    return kept.size() == 1 ? kept[0] : kept[l];
  };
  embed(ids, w.embedding, tokens(), D, of(0).x.data(), stream_);
  if (image != nullptr && image->count > 0) place_rows(*image, D, of(0).x.data(), stream_);
  for (std::size_t l = 0; l < w.layers.size(); ++l) {
    const bool end = l + 1 == w.layers.size();
    block_forward(w, l, of(l), end ? last : of(l + 1).x.data());
  }
  rmsnorm(last, w.final_norm, config_.norm_eps, tokens(), D, hidden, stream_);
}

// What the linears of slot `input` read.
const bf16* Network::seen(const QuantizedInputs* inputs, std::size_t layer, std::size_t input,
                          const bf16* x, int64_t K) {
  if (inputs == nullptr) return x;
  quantize_input(input_quant(*inputs->learned, static_cast<int64_t>(layer), input, inputs->noisy,
                             inputs->seed, inputs->token, K),
                 x, tokens() * K, inputs->buffer, stream_);
  return inputs->buffer;
}

void Network::block_forward(const Weights& weights, std::size_t layer, LayerActivations& a,
                            float* y) {
  const LayerWeights& w = weights.layers[layer];
  const auto read = [&](std::size_t input, const DeviceArray<bf16>& x, int64_t K) {
    return seen(weights.inputs, layer, input, x.data(), K);
  };
  const int64_t T = tokens(), D = config_.dim, F = config_.ffn;
  const int64_t q = config_.heads * config_.head_dim;
  const int64_t width = q + 2 * config_.kv_heads * config_.head_dim;
  rmsnorm(a.x.data(), w.attn_norm, config_.norm_eps, T, D, a.attn_in.data(), stream_);
  gemm_.forward(read(0, a.attn_in, D), w.matrix[0], T, width, D, a.qkv.data());
  if (w.bias != nullptr) add_bias(w.bias, T, width, a.qkv.data(), stream_);
  rope(a.qkv.data(), T, size_.S, width, config_.heads + config_.kv_heads, config_.head_dim,
       cos_.data(), sin_.data(), stream_);
  attention(size_, a.qkv.data(), a.o_in.data(), a.lse.data(), stream_);
  gemm_.forward_add(read(1, a.o_in, q), w.matrix[1], T, D, q, a.x.data(), a.mid.data());
  rmsnorm(a.mid.data(), w.mlp_norm, config_.norm_eps, T, D, a.mlp_in.data(), stream_);
  gemm_.forward(read(2, a.mlp_in, D), w.matrix[2], T, 2 * F, D, a.gate_up.data());
  silu_mul(a.gate_up.data(), T, F, a.down_in.data(), stream_);
  gemm_.forward_add(read(3, a.down_in, F), w.matrix[3], T, D, F, a.mid.data(), y);
}

void Network::backward(const Weights& w, const ParameterLayout& layout,
                       const std::vector<LayerActivations>& kept, const float* last,
                       const bf16* d_hidden, GradientScratch& d, float* gradients) {
  const int64_t D = config_.dim, layers = config_.layers;
  d.residual.zero(stream_);
  rmsnorm_backward(last, w.final_norm, config_.norm_eps, d_hidden, tokens(), D, d.residual.data(),
                   d.rounded.data(), gradients + layout.norm_at(2 * layers, D), d.partial.data(),
                   stream_);
  for (int64_t l = layers - 1; l >= 0; --l) {
    const auto i = static_cast<std::size_t>(l);
    block_backward(w, i, layout.layers[i], kept[i], d, gradients,
                   gradients + layout.norm_at(2 * l, D), gradients + layout.norm_at(2 * l + 1, D));
  }
}

void Network::block_backward(const Weights& weights, std::size_t layer,
                             const std::array<MatrixSlot, 4>& slots, const LayerActivations& a,
                             GradientScratch& d, float* gradients, float* d_attn_norm,
                             float* d_mlp_norm) {
  const LayerWeights& w = weights.layers[layer];
  const QuantizedInputs* inputs = weights.inputs;
  const int64_t T = tokens(), D = config_.dim, F = config_.ffn;
  const float eps = config_.norm_eps;
  // dL/d(input) and dL/dW of one slot.
  const auto linear = [&](std::size_t i, const bf16* dy, const bf16* x, bf16* dx) {
    const int64_t N = slots[i].N, K = slots[i].K;
    gemm_.backward_weight(dy, seen(inputs, layer, i, x, K), T, N, K, false,
                          gradients + slots[i].master_at);
    gemm_.backward_input(dy, w.matrix[i], T, N, K, dx);
    if (inputs == nullptr) return;
    quantize_input_backward(input_quant(*inputs->learned, static_cast<int64_t>(layer), i,
                                        inputs->noisy, inputs->seed, inputs->token, K),
                            x, T * K, dx, inputs->partial, inputs->d_log_alpha + 4 * layer + i,
                            stream_);
  };
  linear(3, d.rounded.data(), a.down_in.data(), d.down_in.data());
  silu_mul_backward(a.gate_up.data(), d.down_in.data(), T, F, d.gate_up.data(), stream_);
  linear(2, d.gate_up.data(), a.mlp_in.data(), d.normed.data());
  rmsnorm_backward(a.mid.data(), w.mlp_norm, eps, d.normed.data(), T, D, d.residual.data(),
                   d.rounded.data(), d_mlp_norm, d.partial.data(), stream_);
  linear(1, d.rounded.data(), a.o_in.data(), d.o_in.data());
  attention_backward(size_, a.qkv.data(), a.o_in.data(), d.o_in.data(), a.lse.data(), cos_.data(),
                     sin_.data(), d.dots.data(), d.qkv.data(), stream_);
  if (slots[0].bias_at >= 0)
    bias_backward(d.qkv.data(), T, slots[0].N, gradients + slots[0].bias_at, d.partial.data(),
                  stream_);
  linear(0, d.qkv.data(), a.attn_in.data(), d.normed.data());
  rmsnorm_backward(a.x.data(), w.attn_norm, eps, d.normed.data(), T, D, d.residual.data(),
                   layer == 0 ? nullptr : d.rounded.data(), d_attn_norm, d.partial.data(), stream_);
}

}  // namespace crumb::quant::train::cuda

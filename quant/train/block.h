// One transformer block in float32: its weights, its forward pass with everything it computed, and
// its backward pass.
//   h = x + Wo attention(rope(Wq n), rope(Wk n), Wv n),  n = rmsnorm(x)
//   y = h + Wdown(silu(Wgate m) * (Wup m)),              m = rmsnorm(h)
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/transformer.h"
#include "models/config.h"
#include "models/source.h"
#include "quant/train/input_quant.h"

namespace crumb::quant::train {

// All row-major. Gradients of a block have the same form.
struct BlockWeights {
  std::vector<float> attn_norm;               // [D]
  std::vector<float> q, k, v;                 // [H * Dh, D] [Hk * Dh, D] [Hk * Dh, D]
  std::vector<float> q_bias, k_bias, v_bias;  // [rows], empty unless config.qkv_bias
  std::vector<float> o;                       // [D, H * Dh]
  std::vector<float> mlp_norm;                // [D]
  std::vector<float> gate, up;                // [F, D]
  std::vector<float> down;                    // [D, F]
  // Empty unless config.block has them; kept and written, but block_forward() computes plain blocks
  // only.
  std::vector<float> q_norm, k_norm, o_norm, down_norm;  // [Dh] [Dh] [D] [D]
};

// Every member of BlockWeights by the name of its tensor, after "model.layers.I.".
struct BlockTensor {
  std::string_view suffix;
  std::vector<float> BlockWeights::*member;
};
std::span<const BlockTensor> block_tensors();

// Sizes of one block; those of a pruned model differ from layer to layer.
struct BlockShape {
  int64_t D = 0, Dh = 0, H = 0, Hk = 0, F = 0;
};
// Of a whole model's blocks; of a pruned one no block is larger.
BlockShape shape_of(const models::ModelConfig& config);
// Of the block that these weights are.
BlockShape shape_of(const models::ModelConfig& config, const BlockWeights& weights);

// Throws what source.read throws.
BlockWeights read_block(const models::SourceModel& source, int64_t layer);
// Zeros of the shapes of one layer's block.
BlockWeights zero_block(const models::ModelConfig& config, int64_t layer = 0);

// The distinct inputs of a block's linears.
enum class LinearInput : uint8_t {
  kAttention,  // "attn_in", of q, k, v: [T, D]
  kOutput,     // "o_in", of o: [T, H * Dh]
  kMlp,        // "mlp_in", of gate and up: [T, D]
  kDown        // "down_in": [T, F]
};
inline constexpr std::array kLinearInputs = {LinearInput::kAttention, LinearInput::kOutput,
                                             LinearInput::kMlp, LinearInput::kDown};
std::string_view linear_input_name(LinearInput input);
int64_t linear_input_width(const BlockShape& shape, LinearInput input);
// Of all layers; of a pruned model, of models::layer_config().
int64_t linear_input_width(const models::ModelConfig& config, LinearInput input);

// What one window of S tokens computes in a block. Also holds the gradients of these values.
struct BlockActivations {
  BlockActivations(const models::ModelConfig& config, int64_t S);
  void resize(const BlockShape& shape, int64_t S);  // no less room than before
  void clear();                                     // to zeros

  std::vector<float> attn_in;   // [S, D] normed x
  std::vector<float> q, k, v;   // [S, H * Dh] [S, Hk * Dh] [S, Hk * Dh]; q, k after RoPE
  std::vector<float> lse;       // [H, S]
  std::vector<float> o_in;      // [S, H * Dh] attention's result
  std::vector<float> mid;       // [S, D] h
  std::vector<float> mlp_in;    // [S, D] normed h
  std::vector<float> gate, up;  // [S, F]
  std::vector<float> down_in;   // [S, F]
};
std::span<const float> linear_input(const BlockActivations& activations, LinearInput input);
// Floats that BlockActivations holds for one token.
int64_t activation_floats(const models::ModelConfig& config);

// What all blocks and windows share. `config` must outlive it.
class BlockContext {
 public:
  BlockContext(const models::ModelConfig& config, int64_t S);
  const models::ModelConfig& config() const { return config_; }
  int64_t S() const { return S_; }
  std::span<const float> cos() const;  // [S, Dh / 2]
  std::span<const float> sin() const;

 private:
  const models::ModelConfig& config_;
  int64_t S_;
  RopeTable rope_;
};

// Quantized inputs of a block's linears; the backward pass adds to the gradients of log alpha.
struct BlockInputs {
  std::array<InputQuant, kLinearInputs.size()> quant;
  std::array<double, kLinearInputs.size()> d_log_alpha{};
};

// x, y [S, D]; y may be x. Fills `activations`, which take the shape of the block. `inputs` may be
// null: linears read them as they are.
void block_forward(const BlockContext& context, const BlockWeights& weights,
                   std::span<const float> x, BlockActivations& activations, std::span<float> y,
                   const BlockInputs* inputs = nullptr);

// From block_forward's x and activations and dy = dL/dy [S, D]: adds dL/dw to `gradients`, writes
// dL/dx to dx [S, D] (may be dy). `scratch` is overwritten. With an empty dx neither it nor
// attn_norm's gradient is computed.
void block_backward(const BlockContext& context, const BlockWeights& weights,
                    std::span<const float> x, const BlockActivations& activations,
                    std::span<const float> dy, BlockActivations& scratch, BlockWeights& gradients,
                    std::span<float> dx, BlockInputs* inputs = nullptr);

}  // namespace crumb::quant::train

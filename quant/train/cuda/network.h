// A Llama-type model on the GPU: weights in bf16, the residual stream in float, forward and
// backward over whole batches of windows. Teacher and student are two Weights of one Network.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "models/config.h"
#include "quant/train/cuda/adapter_ops.h"
#include "quant/train/cuda/gemm.h"
#include "quant/train/cuda/ops.h"
#include "quant/train/layout.h"

namespace crumb::quant::train::cuda {

// Views; all device memory. Matrices are the slots of ParameterLayout, stacked.
struct LayerWeights {
  const float *attn_norm = nullptr, *mlp_norm = nullptr;  // [D]
  std::array<const bf16*, 4> matrix{};                    // qkv, o, gate_up, down: [N, K]
  const float* bias = nullptr;                            // of qkv [N], null: none
};
// Quantized inputs of the linears (quant/train/input_quant.h) in one step.
struct QuantizedInputs {
  const LearnedInputs* learned = nullptr;
  bool noisy = false;
  uint64_t seed = 0;
  int64_t token = 0;              // number of the first in the step
  bf16* buffer = nullptr;         // [tokens, the widest input]
  double* partial = nullptr;      // [kSumBlocks]
  double* d_log_alpha = nullptr;  // [4 L], added to by the backward pass
};
struct Weights {
  const bf16* embedding = nullptr;  // [V, D], also the head if head is the same pointer
  const bf16* head = nullptr;       // [V, D]
  const float* final_norm = nullptr;
  std::vector<LayerWeights> layers;
  const QuantizedInputs* inputs = nullptr;  // null: linears read their inputs as they are
};

// What one block keeps for its backward pass.
struct LayerActivations {
  LayerActivations(const models::ModelConfig& config, int64_t B, int64_t S);
  DeviceArray<float> x, mid, lse;  // residual before the block and between its halves
  DeviceArray<bf16> attn_in, qkv, o_in, mlp_in, gate_up, down_in;
};

// The gradients of one block's values, used by all blocks in turn.
struct GradientScratch {
  GradientScratch(const models::ModelConfig& config, int64_t B, int64_t S);
  DeviceArray<float> residual, dots, partial;
  DeviceArray<bf16> rounded, normed, o_in, qkv, gate_up, down_in;
};

// Gradients of the parameters, in ParameterLayout's order; those of masters are dL/dW^ first.
class Network {
 public:
  // Throws Error(kUsage) if the GPU code has no form for the model's shape or S is no multiple of
  // 64.
  Network(const models::ModelConfig& config, int64_t B, int64_t S, cudaStream_t stream, int tune);

  int64_t tokens() const { return size_.B * size_.S; }
  const models::ModelConfig& config() const { return config_; }
  Gemm& gemm() { return gemm_; }

  // ids [tokens]. `kept` has one element a layer, or one that all layers overwrite. Writes the
  // residual after the last block to `last` [tokens, D] and its normed form to `hidden` [tokens,
  // D]. `image`: rows that stand in place of tokens, or null.
  void forward(const Weights& w, const int32_t* ids, std::vector<LayerActivations>& kept,
               float* last, bf16* hidden, const ImageRows* image = nullptr);
  // From dL/dhidden. `gradients` [layout.size]: masters', norms' and biases' parts are written.
  void backward(const Weights& w, const ParameterLayout& layout,
                const std::vector<LayerActivations>& kept, const float* last, const bf16* d_hidden,
                GradientScratch& scratch, float* gradients);

 private:
  void block_forward(const Weights& weights, std::size_t layer, LayerActivations& a, float* y);
  const bf16* seen(const QuantizedInputs* inputs, std::size_t layer, std::size_t input,
                   const bf16* x, int64_t K);
  void block_backward(const Weights& weights, std::size_t layer,
                      const std::array<MatrixSlot, 4>& slots, const LayerActivations& a,
                      GradientScratch& d, float* gradients, float* d_attn_norm, float* d_mlp_norm);

  models::ModelConfig config_;
  AttentionSize size_;
  cudaStream_t stream_;
  Gemm gemm_;
  DeviceArray<float> cos_, sin_;  // [S, 32]
};

// cos and sin [positions, Dh / 2] of RoPE on the host, as engine/transformer.h's RopeTable.
struct RopeAngles {
  std::vector<float> cos, sin;
};
RopeAngles rope_angles(const models::ModelConfig& config, int64_t positions);

// Throws Error(kUsage) naming what of the shape is not supported on the GPU.
void require_supported(const models::ModelConfig& config);

}  // namespace crumb::quant::train::cuda

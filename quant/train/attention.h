// Causal attention of grouped query heads over one window, forward and backward, tiled over queries
// so that no [S, S] matrix is ever held (FlashAttention's bookkeeping, arXiv:2205.14135).
//
// Query head h reads key/value head h / (H / Hk):
//   P_tj = softmax_j(q_t k_j / sqrt(Dh)), j <= t;  o_t = sum_j P_tj v_j;  lse_t = log sum_j exp(..)
// Backward from the saved lse:  P = exp(q k / sqrt(Dh) - lse),  dV += P^T dO,  dP = dO V^T,
//   D_t = sum(dO_t o_t),  dS = P (dP - D) / sqrt(Dh),  dQ += dS K,  dK += dS^T Q.
#pragma once
#include <cstdint>
#include <span>

namespace crumb::quant::train {

struct AttentionShape {
  int64_t S = 0;         // tokens of the window
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // Hk, divides H
  int64_t head_dim = 0;  // Dh
};

// Inputs after RoPE.
struct AttentionInputs {
  std::span<const float> q;     // [S, H * Dh]
  std::span<const float> k, v;  // [S, Hk * Dh]
};
struct AttentionGradients {
  std::span<float> dq;      // [S, H * Dh]
  std::span<float> dk, dv;  // [S, Hk * Dh]
};

// o [S, H * Dh], lse [H, S].
void attention(const AttentionShape& shape, const AttentionInputs& in, std::span<float> o,
               std::span<float> lse);

// Adds to the gradients; o and lse are attention()'s results.
void attention_backward(const AttentionShape& shape, const AttentionInputs& in,
                        std::span<const float> o, std::span<const float> lse,
                        std::span<const float> d_o, const AttentionGradients& gradients);

}  // namespace crumb::quant::train

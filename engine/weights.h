// A model's tensors bound for execution: views of the mapping, or of one arena in execution order.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/arena.h"
#include "engine/threads/pool.h"
#include "kernels/backend.h"
#include "models/checkpoint.h"
#include "models/source.h"

namespace crumb {

// One matrix [N, K]: packed, or float.
struct Linear {
  std::vector<kernels::PackedMatrix> bands;  // top to bottom, one width each; empty if float
  std::span<const float> f32;                // [N, K]
  int64_t N = 0, K = 0;
};

// Work before each strip [strips + 1] of matrices whose rows are divided between threads together;
// empty if all strips are alike.
using StripWork = std::vector<int32_t>;

// What matrices that share an input need of it.
struct Site {
  int64_t K = 0;
  int64_t hadamard = 0;          // block length, 0 = none
  std::span<const float> signs;  // [K]
  int64_t group = 0;             // activation group: 32, 64 or padded K; 0 = float input
  int64_t groups = 0;            // number of activation scales a token
};

struct Layer {
  int64_t heads = 0, kv_heads = 0, ffn = 0;    // a pruned model's layers differ
  std::span<const float> attn_norm, mlp_norm;  // [D]
  Linear q, k, v, o, gate, up, down;
  std::span<const float> q_bias, k_bias, v_bias;  // empty or [N]
  std::span<const float> q_norm, k_norm;          // empty or [Dh]
  std::span<const float> o_norm, down_norm;       // of what is added to x: empty or [D]
  Site attn_in, o_in, mlp_in, down_in;
  StripWork o_work, mlp_work, down_work;
};

struct Weights {
  Linear embedding, head;  // head is the embedding if tied
  StripWork head_work;
  Site head_in;
  std::vector<float> embedding_ones;       // [D], signs of the inverse rotation's Hadamard
  std::span<const float> embedding_signs;  // [D] or empty
  int64_t embedding_hadamard = 0;
  std::vector<Layer> layers;
  std::span<const float> final_norm;  // [D]

  Arena arena;
  std::vector<std::vector<float>> sign_store;
  int64_t linear_bytes = 0, linear_weights = 0, head_bytes = 0, embedding_bytes = 0;
};

// What matrices [.., K] that share an input need of it; signs of a rotation are kept in
// `sign_store`. Throws FormatError naming `where` if they ask for different rotations or are not
// all packed or all float.
Site shared_site(std::vector<std::vector<float>>& sign_store,
                 const std::vector<models::MatrixView>& views, int64_t K, const std::string& where);

// Binds a checkpoint; with `copy` the bytes go into one huge-page arena, each part first touched by
// the thread that will read it. Throws FormatError if matrices of one site ask for different
// rotations.
Weights bind_weights(const models::Checkpoint& checkpoint, bool copy, threads::Pool& pool);
// Reads a source into float weights, tensor by tensor on all threads.
Weights read_weights(const models::SourceModel& source, threads::Pool& pool);

}  // namespace crumb

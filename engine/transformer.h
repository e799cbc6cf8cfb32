// Embedding -> blocks -> logits for T >= 1 tokens of one or several sequences, run by all threads
// together.
//
//   x = embed(ids)
//   per layer:  qkv = W_qkv norm(x);  rope(q, k);  cache(k, v);  x += W_o attention(q)
//               x += W_down (silu(W_gate norm(x)) * W_up norm(x))
//   logits = W_head norm(x)
//
// Blocks may differ (models/config.h, BlockOptions): norms of q and k, norms of what is added to x,
// GeGLU, windows, a second RoPE table, a scaled embedding. The layers of a pruned model have F, H
// and Hk of their own; scratch is for the largest.
//
// A layer is five phases with a barrier after each. Rows of a matrix and heads are divided between
// threads, never the sum over K, so the result does not depend on their number. For T = 1 every
// thread prepares the input for itself (0.3 us, cheaper than a barrier); for T > 1 the tokens are
// divided.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/attention.h"
#include "engine/kv_cache.h"
#include "engine/linear.h"
#include "engine/logit_blocks.h"
#include "engine/phase_times.h"
#include "engine/threads/pool.h"
#include "engine/weights.h"
#include "models/config.h"

namespace crumb {

// All scratch of a step, allocated once.
struct Activations {
  Activations(const models::ModelConfig& config, int64_t max_tokens, int64_t context, int threads);

  int64_t max_tokens, logit_capacity = 1;   // rows of logits there is room for
  kernels::AlignedBuffer<float> x;          // [T, D] residual stream
  kernels::AlignedBuffer<float> qkv;        // [T, (H + 2 Hk) * Dh]
  kernels::AlignedBuffer<float> att;        // [T, H * Dh], for T > 1
  kernels::AlignedBuffer<float> gate;       // [T, F]
  kernels::AlignedBuffer<float> up;         // [T, F]
  kernels::AlignedBuffer<float> delta;      // [T, D] what a block adds
  kernels::AlignedBuffer<float> logits;     // [rows, V] of the rows that want them
  kernels::AlignedBuffer<float> block_max;  // [rows, logit_blocks(V)], of these logits
  InputBuffer shared;                       // T tokens
  std::vector<InputBuffer> own;             // one token a thread
  AttentionBuffers attention;
  std::unique_ptr<std::atomic<bool>[]> finite;  // [max_tokens], of the rows of logits

  // Room for `rows` rows of logits, kept; their `finite` becomes true.
  void expect_logits(int64_t rows);
};

// cos and sin of position * theta^(-2i/Dh) / factor_i, times the magnitude, filled as positions are
// reached.
class RopeTable {
 public:
  // For layers that see all positions, or (local) for those with a window.
  RopeTable(const models::ModelConfig& config, int64_t context, bool local = false);
  void extend(int64_t positions);
  const float* cos(int64_t position) const { return cos_ + position * half_; }
  const float* sin(int64_t position) const { return sin_ + position * half_; }

 private:
  int64_t half_, filled_ = 0;
  double magnitude_ = 1;
  std::vector<double> frequency_;  // [Dh / 2]
  Arena arena_;
  float *cos_, *sin_;  // [context, Dh / 2]
};

// The tables of a session: one, or another for layers with a window.
struct RopeTables {
  RopeTables(const models::ModelConfig& config, int64_t context);
  void extend(int64_t positions);
  const RopeTable& of(int64_t window) const { return window > 0 && local ? *local : all; }

  RopeTable all;
  std::optional<RopeTable> local;
};

// The rows of one sequence in a step: tokens [first, first + count) of its ids, at `position` on.
struct StepRows {
  KvCache* cache;
  int64_t position, first, count;
};

struct StepContext {
  const models::ModelConfig& config;
  const Weights& weights;
  const kernels::Backend& backend;
  std::span<const StepRows> sequences;
  const RopeTables& rope;
  Activations& act;
  std::span<const int32_t> ids;            // [T] of all sequences, one after the other
  std::span<const float* const> embedded;  // rows [D] that an id below 0, ~i, stands for
  std::span<const int64_t> logit_rows;     // tokens that get logits, row i of act.logits each
  PhaseTimes* times = nullptr;             // filled by thread 0 if not null
};

// One step on one thread of a pool; every thread of the pool must call it with the same context.
void transformer_step(const StepContext& step, const threads::Worker& worker) noexcept;

}  // namespace crumb

#include "engine/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace crumb {
namespace {

using kernels::kStripRows;
using kernels::Range;
using threads::Worker;

constexpr std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

void lap(const StepContext& s, const Worker& w, Phase phase) noexcept {
  if (s.times != nullptr && w.index() == 0) s.times->lap(phase);
}

void end_phase(const StepContext& s, const Worker& w, Phase phase) noexcept {
  lap(s, w, phase);
  w.sync();
  lap(s, w, Phase::kWait);
}

// Input of a site: fill(t, out [K]) writes token t's floats; then rotation and int8.
template <class Fill>
Input prepare(const StepContext& s, const Worker& w, const Site& site, int64_t T,
              Fill&& fill) noexcept {
  if (T == 1) {
    InputBuffer& own = s.act.own[size_of(w.index())];
    fill(0, own.x.data());
    prepare_token(s.backend, site, own, 0);
    lap(s, w, Phase::kPrepare);
    return input_of(site, own, 1);
  }
  const Range tokens = w.slice(T);
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    fill(t, s.act.shared.x.data() + t * site.K);
    prepare_token(s.backend, site, s.act.shared, t);
  }
  end_phase(s, w, Phase::kPrepare);
  return input_of(site, s.act.shared, T);
}

Input prepare_normed(const StepContext& s, const Worker& w, const Site& site,
                     std::span<const float> norm) noexcept {
  const int64_t D = s.config.dim;
  return prepare(s, w, site, std::ssize(s.ids), [&](int64_t t, float* out) {
    s.backend.rmsnorm(s.act.x.data() + t * D, norm.data(), D, s.config.norm_eps, out);
  });
}

Input prepare_copied(const StepContext& s, const Worker& w, const Site& site,
                     const float* x) noexcept {
  return prepare(s, w, site, std::ssize(s.ids), [&](int64_t t, float* out) {
    std::memcpy(out, x + t * site.K, size_of(site.K) * sizeof(float));
  });
}

Input prepare_attention(const StepContext& s, const Worker& w, const Site& site,
                        int64_t layer) noexcept {
  if (s.ids.size() > 1) return prepare_copied(s, w, site, s.act.att.data());
  return prepare(s, w, site, 1, [&](int64_t, float* out) { gather_token(s, layer, out); });
}

void embed(const StepContext& s, const Worker& w) noexcept {
  const int64_t D = s.config.dim;
  const Linear& table = s.weights.embedding;
  const Range tokens = w.slice(static_cast<int64_t>(s.ids.size()));
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    const std::span<float> x(s.act.x.data() + t * D, size_of(D));
    const int32_t id = s.ids[size_of(t)];
    if (id < 0) {
      std::memcpy(x.data(), s.embedded[size_of(~id)], size_of(D) * sizeof(float));
      continue;
    }
    if (table.bands.empty())
      std::memcpy(x.data(), table.f32.data() + id * D, size_of(D) * sizeof(float));
    else
      models::dequantize_row(table.bands, id, x);
    if (s.weights.embedding_hadamard > 0) {
      // The row is stored as H S w; H is its own inverse, so S H gives w back.
      s.backend.hadamard(x.data(), s.weights.embedding_ones.data(), D,
                         s.weights.embedding_hadamard);
      for (int64_t i = 0; i < D; ++i) x[size_of(i)] *= s.weights.embedding_signs[size_of(i)];
    }
    if (s.config.block.embedding_scale != 1.0f)
      for (float& value : x) value *= s.config.block.embedding_scale;
  }
}

// Columns of qkv.
int64_t qkv_width(const StepContext& s, const Layer& layer) noexcept {
  return (layer.heads + 2 * layer.kv_heads) * s.config.head_dim;
}

// Rows [heads.begin * Dh, heads.end * Dh) of w into the columns of qkv [T, ldy] that start at
// `first`.
void multiply_heads(const StepContext& s, const Linear& w, std::span<const float> bias,
                    const Input& in, Range heads, int64_t first, int64_t ldy) noexcept {
  if (heads.begin >= heads.end) return;
  const int64_t begin = heads.begin * s.config.head_dim, end = heads.end * s.config.head_dim;
  float* y = s.act.qkv.data() + first;
  multiply(s.backend, w, in, {begin / kStripRows, (end + kStripRows - 1) / kStripRows}, y, ldy);
  if (bias.empty()) return;
  for (int64_t t = 0; t < std::ssize(s.ids); ++t)
    for (int64_t n = begin; n < end; ++n) y[t * ldy + n] += bias[size_of(n)];
}

struct HeadSplit {
  Range q, kv;
};

// Divides query heads and (key, value) heads between threads: a key/value pair costs two query
// heads. The unit is a head, or the fewest heads that fill whole strips, so that RoPE and the cache
// write need no other thread's rows. Heads that cannot be grouped so are all thread 0's.
HeadSplit split_heads(const Layer& layer, int64_t Dh, const Worker& w) noexcept {
  const int64_t unit = std::lcm(Dh, kStripRows) / Dh;
  if (layer.heads % unit != 0 || layer.kv_heads % unit != 0) {
    const int64_t all = w.index() == 0 ? 1 : 0;
    return {{0, all * layer.heads}, {0, all * layer.kv_heads}};
  }
  const int64_t q_units = layer.heads / unit;
  const Range own = w.slice(q_units + 2 * (layer.kv_heads / unit));
  const auto q = [&](int64_t cost) { return std::min(cost, q_units) * unit; };
  const auto kv = [&](int64_t cost) {
    return (std::max<int64_t>(cost - q_units, 0) + 1) / 2 * unit;
  };
  return {{q(own.begin), q(own.end)}, {kv(own.begin), kv(own.end)}};
}

// Heads of Dh values each, in place.
void norm_heads(const StepContext& s, std::span<const float> norm, float* heads,
                int64_t count) noexcept {
  if (norm.empty()) return;
  const int64_t Dh = s.config.head_dim;
  for (float* head = heads; head != heads + count * Dh; head += Dh)
    s.backend.rmsnorm(head, norm.data(), Dh, s.config.norm_eps, head);
}

// Of token `t` of one sequence: this thread's heads are normed and turned, keys and values kept.
void turn_and_store(const StepContext& s, const Layer& layer, int64_t index, const StepRows& rows,
                    int64_t t, const HeadSplit& own, float* row) noexcept {
  const auto& c = s.config;
  const int64_t Dh = c.head_dim, position = rows.position + t;
  const RopeTable& rope = s.rope.of(models::window_of(c, index));
  const float *cos = rope.cos(position), *sin = rope.sin(position);
  float *k = row + layer.heads * Dh, *v = k + layer.kv_heads * Dh;
  norm_heads(s, layer.q_norm, row + own.q.begin * Dh, own.q.end - own.q.begin);
  norm_heads(s, layer.k_norm, k + own.kv.begin * Dh, own.kv.end - own.kv.begin);
  if (own.q.begin < own.q.end)
    s.backend.rope(row + own.q.begin * Dh, own.q.end - own.q.begin, Dh, cos, sin);
  for (int64_t h = own.kv.begin; h < own.kv.end; ++h) {
    s.backend.rope(k + h * Dh, 1, Dh, cos, sin);
    rows.cache->store(s.backend, index, h, position, k + h * Dh, v + h * Dh);
  }
}

// Phase 1.
void qkv_phase(const StepContext& s, const Worker& w, const Layer& layer, int64_t index) noexcept {
  const int64_t Dh = s.config.head_dim, width = qkv_width(s, layer);
  const int64_t k_first = layer.heads * Dh, v_first = k_first + layer.kv_heads * Dh;
  const Input in = prepare_normed(s, w, layer.attn_in, layer.attn_norm);
  const HeadSplit own = split_heads(layer, Dh, w);
  multiply_heads(s, layer.q, layer.q_bias, in, own.q, 0, width);
  multiply_heads(s, layer.k, layer.k_bias, in, own.kv, k_first, width);
  multiply_heads(s, layer.v, layer.v_bias, in, own.kv, v_first, width);
  lap(s, w, Phase::kMatmul);
  for (const StepRows& rows : s.sequences)
    for (int64_t t = 0; t < rows.count; ++t)
      turn_and_store(s, layer, index, rows, t, own, s.act.qkv.data() + (rows.first + t) * width);
  end_phase(s, w, Phase::kEpilogue);
}

// Phase 2.
void attention_phase(const StepContext& s, const Worker& w, int64_t index) noexcept {
  if (s.ids.size() == 1)
    attend_token(s, w, index);
  else
    attend_tokens(s, w, index);
  end_phase(s, w, Phase::kAttention);
}

// x[t, rows] += y[t, rows] for this thread's rows.
void add_rows(const StepContext& s, Range strips) noexcept {
  const int64_t D = s.config.dim;
  const int64_t begin = strips.begin * kStripRows, end = std::min(D, strips.end * kStripRows);
  for (int64_t t = 0; t < std::ssize(s.ids); ++t)
    for (int64_t n = begin; n < end; ++n)
      s.act.x[size_of(t * D + n)] += s.act.delta[size_of(t * D + n)];
}

// x[t] += norm(delta[t]) for this thread's tokens: a row's sum is never divided.
void add_normed(const StepContext& s, const Worker& w, std::span<const float> norm) noexcept {
  const int64_t D = s.config.dim;
  const Range tokens = w.slice(static_cast<int64_t>(s.ids.size()));
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    float* delta = s.act.delta.data() + t * D;
    s.backend.rmsnorm(delta, norm.data(), D, s.config.norm_eps, delta);
    for (int64_t n = 0; n < D; ++n) s.act.x[size_of(t * D + n)] += delta[n];
  }
}

// Phases 3 and 5: x += W input, or, with a norm, x += norm(W input).
void residual_phase(const StepContext& s, const Worker& w, const Linear& matrix,
                    const StripWork& work, const Input& in, std::span<const float> norm) noexcept {
  const Range strips = own_strips(work, matrix.N, w);
  multiply(s.backend, matrix, in, strips, s.act.delta.data(), s.config.dim);
  lap(s, w, Phase::kMatmul);
  if (norm.empty()) {
    add_rows(s, strips);
  } else {
    w.sync();
    lap(s, w, Phase::kWait);
    add_normed(s, w, norm);
  }
  end_phase(s, w, Phase::kEpilogue);
}

// Phase 4: gate = silu or gelu(W_gate norm(x)) * (W_up norm(x)).
void gate_up_phase(const StepContext& s, const Worker& w, const Layer& layer) noexcept {
  const int64_t F = layer.ffn;
  const Input in = prepare_normed(s, w, layer.mlp_in, layer.mlp_norm);
  const Range strips = own_strips(layer.mlp_work, F, w);
  multiply(s.backend, layer.gate, in, strips, s.act.gate.data(), F);
  multiply(s.backend, layer.up, in, strips, s.act.up.data(), F);
  lap(s, w, Phase::kMatmul);
  const int64_t begin = strips.begin * kStripRows, end = std::min(F, strips.end * kStripRows);
  const auto activate = s.config.block.activation == models::Activation::kSilu ? s.backend.silu_mul
                                                                               : s.backend.gelu_mul;
  for (int64_t t = 0; t < std::ssize(s.ids) && begin < end; ++t)
    activate(s.act.gate.data() + t * F + begin, s.act.up.data() + t * F + begin, end - begin);
  end_phase(s, w, Phase::kEpilogue);
}

static_assert(kLogitBlock == kStripRows, "a strip of the head is a block of logits");

// The head sees only the tokens that were asked for.
void head_phase(const StepContext& s, const Worker& w) noexcept {
  const auto& c = s.config;
  const int64_t rows = std::ssize(s.logit_rows), blocks = logit_blocks(c.vocab);
  const Input in = prepare(s, w, s.weights.head_in, rows, [&](int64_t i, float* out) {
    s.backend.rmsnorm(s.act.x.data() + s.logit_rows[size_of(i)] * c.dim,
                      s.weights.final_norm.data(), c.dim, c.norm_eps, out);
  });
  const Range strips = own_strips(s.weights.head_work, c.vocab, w);
  multiply(s.backend, s.weights.head, in, strips, s.act.logits.data(), c.vocab);
  const int64_t begin = strips.begin * kStripRows, end = std::min(c.vocab, strips.end * kStripRows);
  for (int64_t i = 0; i < rows && begin < end; ++i) {
    const std::span<const float> own(s.act.logits.data() + i * c.vocab + begin,
                                     size_of(end - begin));
    if (!find_block_max(own, s.act.block_max.data() + i * blocks + strips.begin))
      s.act.finite[size_of(i)].store(false, std::memory_order_relaxed);
  }
  lap(s, w, Phase::kHead);
}

}  // namespace

Activations::Activations(const models::ModelConfig& c, int64_t tokens, int64_t positions,
                         int threads)
    : max_tokens(tokens),
      x(size_of(tokens * c.dim)),
      qkv(size_of(tokens * (c.heads + 2 * c.kv_heads) * c.head_dim)),
      att(size_of(tokens * c.heads * c.head_dim)),
      gate(size_of(tokens * c.ffn)),
      up(size_of(tokens * c.ffn)),
      delta(size_of(tokens * c.dim)),
      logits(size_of(c.vocab)),
      block_max(size_of(logit_blocks(c.vocab))),
      shared(tokens, std::max({c.dim, c.ffn, c.heads * c.head_dim})),
      attention(c, positions, threads),
      finite(std::make_unique<std::atomic<bool>[]>(size_of(tokens))) {
  own.reserve(size_of(threads));
  for (int i = 0; i < threads; ++i)
    own.emplace_back(1, std::max({c.dim, c.ffn, c.heads * c.head_dim}));
}

void Activations::expect_logits(int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) finite[size_of(i)].store(true, std::memory_order_relaxed);
  if (rows <= logit_capacity) return;
  const std::size_t V = logits.size() / size_of(logit_capacity);
  const std::size_t blocks = block_max.size() / size_of(logit_capacity);
  logits = kernels::AlignedBuffer<float>(size_of(rows) * V);
  block_max = kernels::AlignedBuffer<float>(size_of(rows) * blocks);
  logit_capacity = rows;
}

RopeTable::RopeTable(const models::ModelConfig& config, int64_t context, bool local)
    : half_(config.head_dim / 2) {
  const models::BlockOptions& block = config.block;
  const double theta = local ? block.rope_theta_local : config.rope_theta;
  for (int64_t i = 0; i < half_; ++i) {
    frequency_.push_back(
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim)));
    if (!local && !block.rope_factors.empty())
      frequency_.back() /= static_cast<double>(block.rope_factors[size_of(i)]);
  }
  if (!local) magnitude_ = block.rope_magnitude;
  const std::size_t n = size_of(context * half_);
  arena_ = Arena(2 * Arena::aligned_size(n * sizeof(float)), false);
  cos_ = arena_.take_array<float>(n).data();
  sin_ = arena_.take_array<float>(n).data();
}

void RopeTable::extend(int64_t positions) {
  for (; filled_ < positions; ++filled_)
    for (int64_t i = 0; i < half_; ++i) {
      const double angle = static_cast<double>(filled_) * frequency_[size_of(i)];
      cos_[filled_ * half_ + i] = static_cast<float>(magnitude_ * std::cos(angle));
      sin_[filled_ * half_ + i] = static_cast<float>(magnitude_ * std::sin(angle));
    }
}

RopeTables::RopeTables(const models::ModelConfig& config, int64_t context)
    : all(config, context, false) {
  if (config.block.window > 0 && config.block.rope_theta_local != 0)
    local.emplace(config, context, true);
}

void RopeTables::extend(int64_t positions) {
  all.extend(positions);
  if (local) local->extend(positions);
}

void transformer_step(const StepContext& s, const Worker& w) noexcept {
  if (s.times != nullptr && w.index() == 0) s.times->start();
  embed(s, w);
  end_phase(s, w, Phase::kPrepare);
  for (int64_t i = 0; i < s.config.layers; ++i) {
    const Layer& layer = s.weights.layers[size_of(i)];
    qkv_phase(s, w, layer, i);
    attention_phase(s, w, i);
    residual_phase(s, w, layer.o, layer.o_work, prepare_attention(s, w, layer.o_in, i),
                   layer.o_norm);
    gate_up_phase(s, w, layer);
    residual_phase(s, w, layer.down, layer.down_work,
                   prepare_copied(s, w, layer.down_in, s.act.gate.data()), layer.down_norm);
  }
  if (!s.logit_rows.empty()) head_phase(s, w);
}

}  // namespace crumb

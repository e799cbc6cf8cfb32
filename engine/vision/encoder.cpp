#include "engine/vision/encoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "engine/attention.h"
#include "engine/session.h"
#include "engine/vision/preprocess.h"
#include "engine/vision/weights.h"
#include "kernels/gelu.h"
#include "kernels/layernorm.h"
#include "models/errors.h"

namespace crumb::vision {
namespace {

using kernels::kAttendChunk;
using kernels::kAttendRows;
using kernels::kKeyTile;
using kernels::kStripRows;
using kernels::Range;
using models::VisionActivation;
using threads::Worker;

constexpr std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }
int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

int64_t widest_input(const models::VisionConfig& v) {
  return std::max({v.dim, v.ffn, 3 * v.patch * v.patch, models::projector_columns(v), v.hidden});
}

// A thread's own.
struct Scratch {
  kernels::AlignedBuffer<float> scores;  // [kAttendRows, kAttendChunk]
  kernels::AlignedBuffer<float> out;     // [kAttendRows, Dh]
  std::vector<float> ones;               // [widest part of a row that is activated], 1 / slope
};

// All scratch of one image. T tokens, D, F, H, Dh as in models/vision.h.
struct Step {
  Step(const Engine& the_engine, std::span<const float> the_pixels)
      : engine(the_engine.state()),
        v(*engine.config.vision),
        w(*engine.vision),
        backend(engine.backend),
        pixels(the_pixels),
        T(models::vision_tokens(v)),
        first(v.class_token ? 1 : 0),
        Dh(v.dim / v.heads),
        keys_stride(round_up(T, kKeyTile) * Dh),
        x(size_of(T * v.dim)),
        qkv(size_of(T * 3 * v.dim)),
        att(size_of(T * v.dim)),
        wide(size_of(T * std::max(v.ffn, v.dim))),
        keys(size_of(v.heads * keys_stride)),
        values(size_of(v.heads * T * Dh)),
        input(T, widest_input(v)) {
    for (int i = 0; i < engine.pool.size(); ++i)
      own.push_back({kernels::AlignedBuffer<float>(size_of(kAttendRows * kAttendChunk)),
                     kernels::AlignedBuffer<float>(size_of(kAttendRows * Dh)),
                     std::vector<float>(size_of(std::max(v.ffn, v.hidden)))});
    out.features.resize(size_of((T - first) * v.dim));
    out.rows.resize(size_of(models::image_tokens(v) * engine.config.dim));
    hidden.resize(size_of(models::image_tokens(v) * v.hidden));
  }

  const Engine::State& engine;
  const models::VisionConfig& v;
  const Weights& w;
  const kernels::Backend& backend;
  std::span<const float> pixels;  // [3, S, S]
  int64_t T, first, Dh, keys_stride;
  kernels::AlignedBuffer<float> x;       // [T, D]
  kernels::AlignedBuffer<float> qkv;     // [T, 3 D]
  kernels::AlignedBuffer<float> att;     // [T, D]
  kernels::AlignedBuffer<float> wide;    // [T, F], or [T, D] that is added to x
  kernels::AlignedBuffer<float> keys;    // [H, tiles of 16 tokens, Dh, 16]
  kernels::AlignedBuffer<float> values;  // [H, T, Dh]
  InputBuffer input;
  std::vector<float> hidden;  // [image tokens, hidden]
  std::vector<Scratch> own;
  Encoding out;
};

// fill(t, out [K]) writes the floats of this thread's tokens; then rotation and int8.
template <class Fill>
Input prepare(Step& s, const Worker& worker, const Site& site, int64_t count,
              Fill&& fill) noexcept {
  const Range tokens = worker.slice(count);
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    fill(t, s.input.x.data() + t * site.K);
    prepare_token(s.backend, site, s.input, t);
  }
  worker.sync();
  return input_of(site, s.input, count);
}

Input prepare_normed(Step& s, const Worker& worker, const Site& site, const Norm& norm) noexcept {
  return prepare(s, worker, site, s.T, [&](int64_t t, float* out) {
    kernels::layernorm(s.x.data() + t * s.v.dim, norm.weight.data(), norm.bias.data(), s.v.dim,
                       s.v.norm_eps, out);
  });
}

Input prepare_copied(Step& s, const Worker& worker, const Site& site, const float* from,
                     int64_t count) noexcept {
  return prepare(s, worker, site, count, [&](int64_t t, float* out) {
    std::memcpy(out, from + t * site.K, size_of(site.K) * sizeof(float));
  });
}

// y[t * ldy + n] = W x + bias for this thread's rows n of W, which it returns.
Range multiply_biased(Step& s, const Worker& worker, const Matrix& m, const Input& in, float* y,
                      int64_t ldy) noexcept {
  const Range strips = worker.slice(kernels::strip_count(m.w.N));
  multiply(s.backend, m.w, in, strips, y, ldy);
  const Range rows{strips.begin * kStripRows, std::min(m.w.N, strips.end * kStripRows)};
  if (m.bias.empty()) return rows;
  for (int64_t t = 0; t < in.q.tokens; ++t)
    for (int64_t n = rows.begin; n < rows.end; ++n) y[t * ldy + n] += m.bias[size_of(n)];
  return rows;
}

// n values in place. The sigmoid forms are x * s / (1 + exp(-x * s)) / s, the decoder's SiLU.
void activate(const kernels::Backend& backend, VisionActivation kind, float* x, int64_t n,
              float* scratch) noexcept {
  if (kind == VisionActivation::kGeluErf) return kernels::gelu_erf(x, n);
  constexpr float kQuick = 1.702f, kTwice = 1.5957691216057308f;  // 2 sqrt(2 / pi)
  for (int64_t i = 0; i < n; ++i) {
    const float slope =
        kind == VisionActivation::kQuickGelu ? kQuick : kTwice * (1.0f + 0.044715f * (x[i] * x[i]));
    x[i] *= slope;
    scratch[i] = 1.0f / slope;
  }
  backend.silu_mul(x, scratch, n);
}

void activate_rows(Step& s, const Worker& worker, VisionActivation kind, Range rows, int64_t count,
                   float* y, int64_t ldy) noexcept {
  if (rows.begin >= rows.end) return;
  for (int64_t t = 0; t < count; ++t)
    activate(s.backend, kind, y + t * ldy + rows.begin, rows.end - rows.begin,
             s.own[size_of(worker.index())].ones.data());
}

// x += scale * (W input + bias); a thread's rows of W are its columns of x.
void add_scaled(Step& s, const Worker& worker, const Matrix& m, const Input& in,
                std::span<const float> scale) noexcept {
  const int64_t D = s.v.dim;
  const Range rows = multiply_biased(s, worker, m, in, s.wide.data(), D);
  for (int64_t t = 0; t < s.T; ++t)
    for (int64_t n = rows.begin; n < rows.end; ++n) {
      const float delta = s.wide.data()[t * D + n];
      s.x.data()[t * D + n] += scale.empty() ? delta : scale[size_of(n)] * delta;
    }
  worker.sync();
}

// [3, p, p] of patch i.
void gather_patch(const Step& s, int64_t i, float* out) noexcept {
  const int64_t S = s.v.image, p = s.v.patch, side = S / p;
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t y = 0; y < p; ++y, out += p)
      std::memcpy(out, s.pixels.data() + (c * S + i / side * p + y) * S + i % side * p,
                  size_of(p) * sizeof(float));
}

void embed(Step& s, const Worker& worker) noexcept {
  const int64_t D = s.v.dim;
  const Input in = prepare(s, worker, s.w.patch.in, s.T - s.first,
                           [&](int64_t i, float* out) { gather_patch(s, i, out); });
  multiply_biased(s, worker, s.w.patch, in, s.x.data() + s.first * D, D);
  worker.sync();
  const Range tokens = worker.slice(s.T);
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    float* x = s.x.data() + t * D;
    if (t < s.first) std::memcpy(x, s.w.class_row.data(), size_of(D) * sizeof(float));
    for (int64_t n = 0; n < D; ++n) x[n] += s.w.position[size_of(t * D + n)];
    if (!s.w.pre.weight.empty())
      kernels::layernorm(x, s.w.pre.weight.data(), s.w.pre.bias.data(), D, s.v.norm_eps, x);
  }
  worker.sync();
}

// Keys and values of this thread's tokens from qkv to where the attention kernel reads them.
void lay_out_keys(Step& s, const Worker& worker) noexcept {
  const int64_t D = s.v.dim, Dh = s.Dh;
  const Range tokens = worker.slice(s.T);
  for (int64_t t = tokens.begin; t < tokens.end; ++t)
    for (int64_t h = 0; h < s.v.heads; ++h) {
      const float* k = s.qkv.data() + t * 3 * D + D + h * Dh;
      float* tile = s.keys.data() + h * s.keys_stride + t / kKeyTile * Dh * kKeyTile + t % kKeyTile;
      for (int64_t d = 0; d < Dh; ++d) tile[d * kKeyTile] = k[d];
      std::memcpy(s.values.data() + (h * s.T + t) * Dh, k + D, size_of(Dh) * sizeof(float));
    }
  worker.sync();
}

// Up to kAttendRows queries of one head over all tokens, a chunk after the other.
void attend_block(Step& s, Scratch& scratch, int64_t head, int64_t begin, int64_t count) noexcept {
  const int64_t D = s.v.dim, Dh = s.Dh;
  const float scale = 1.0f / std::sqrt(static_cast<float>(Dh));
  std::array<kernels::AttendRow, kAttendRows> total, part;
  for (int64_t from = 0; from < s.T; from += kAttendChunk) {
    kernels::KvHead kv;
    kv.type = kernels::KvType::kF32;
    kv.k = s.keys.data() + head * s.keys_stride + from * Dh;
    kv.v = s.values.data() + (head * s.T + from) * Dh;
    for (int64_t r = 0; r < count; ++r) {
      const int64_t t = begin + r;
      kernels::AttendRow& row = part[size_of(r)];
      row.q = s.qkv.data() + t * 3 * D + head * Dh;
      row.out = from == 0 ? s.att.data() + t * D + head * Dh : scratch.out.data() + r * Dh;
      row.n = std::min(kAttendChunk, s.T - from);
    }
    s.backend.attend(kv, Dh, scale, part.data(), count, scratch.scores.data());
    for (int64_t r = 0; r < count; ++r)
      if (from == 0)
        total[size_of(r)] = part[size_of(r)];
      else
        merge(total[size_of(r)], part[size_of(r)], Dh);
  }
  for (int64_t r = 0; r < count; ++r)
    for (int64_t d = 0; d < Dh; ++d) total[size_of(r)].out[d] /= total[size_of(r)].sum;
}

void attend(Step& s, const Worker& worker) noexcept {
  const int64_t blocks = (s.T + kAttendRows - 1) / kAttendRows;
  const Range own = worker.slice(s.v.heads * blocks);
  for (int64_t i = own.begin; i < own.end; ++i) {
    const int64_t begin = i % blocks * kAttendRows;
    attend_block(s, s.own[size_of(worker.index())], i / blocks, begin,
                 std::min(kAttendRows, s.T - begin));
  }
  worker.sync();
}

void run_block(Step& s, const Worker& worker, const Block& block) noexcept {
  const int64_t D = s.v.dim, F = s.v.ffn;
  const Input normed = prepare_normed(s, worker, block.q.in, block.norm1);
  multiply_biased(s, worker, block.q, normed, s.qkv.data(), 3 * D);
  multiply_biased(s, worker, block.k, normed, s.qkv.data() + D, 3 * D);
  multiply_biased(s, worker, block.v, normed, s.qkv.data() + 2 * D, 3 * D);
  worker.sync();
  lay_out_keys(s, worker);
  attend(s, worker);
  add_scaled(s, worker, block.o, prepare_copied(s, worker, block.o.in, s.att.data(), s.T),
             block.scale1);
  const Input again = prepare_normed(s, worker, block.fc1.in, block.norm2);
  const Range rows = multiply_biased(s, worker, block.fc1, again, s.wide.data(), F);
  activate_rows(s, worker, s.v.activation, rows, s.T, s.wide.data(), F);
  worker.sync();
  const Input activated = prepare_copied(s, worker, block.fc2.in, s.wide.data(), s.T);
  add_scaled(s, worker, block.fc2, activated, block.scale2);
}

// The patches' rows behind the last norm.
void finish(Step& s, const Worker& worker) noexcept {
  const int64_t D = s.v.dim;
  const Range tokens = worker.slice(s.T - s.first);
  for (int64_t t = tokens.begin; t < tokens.end; ++t) {
    const float* x = s.x.data() + (t + s.first) * D;
    float* out = s.out.features.data() + t * D;
    if (s.w.last.weight.empty())
      std::memcpy(out, x, size_of(D) * sizeof(float));
    else
      kernels::layernorm(x, s.w.last.weight.data(), s.w.last.bias.data(), D, s.v.norm_eps, out);
  }
  worker.sync();
}

// The rows of u x u neighbours, one after the other, rows of the image first.
void gather_neighbours(const Step& s, int64_t i, float* out) noexcept {
  const int64_t D = s.v.dim, u = s.v.unshuffle, side = models::patches_a_side(s.v);
  for (int64_t y = 0; y < u; ++y, out += u * D) {
    const int64_t patch = (i / (side / u) * u + y) * side + i % (side / u) * u;
    std::memcpy(out, s.out.features.data() + patch * D, size_of(u * D) * sizeof(float));
  }
}

void project(Step& s, const Worker& worker) noexcept {
  const int64_t count = models::image_tokens(s.v), D = s.engine.config.dim;
  const Input in = prepare(s, worker, s.w.linear_1.in, count,
                           [&](int64_t i, float* out) { gather_neighbours(s, i, out); });
  if (s.v.hidden == 0) {
    multiply_biased(s, worker, s.w.linear_1, in, s.out.rows.data(), D);
    return;
  }
  const Range rows = multiply_biased(s, worker, s.w.linear_1, in, s.hidden.data(), s.v.hidden);
  activate_rows(s, worker, s.v.projector_activation, rows, count, s.hidden.data(), s.v.hidden);
  worker.sync();
  const Input hidden = prepare_copied(s, worker, s.w.linear_2.in, s.hidden.data(), count);
  multiply_biased(s, worker, s.w.linear_2, hidden, s.out.rows.data(), D);
}

void require_finite(std::span<const float> values) {
  if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }))
    throw Error(ExitCode::kNumeric, "a value of the image's rows is not finite",
                "the weights may be damaged: crumb inspect --verify FILE");
}

}  // namespace

Encoding encode(const Engine& engine, std::span<const float> pixels) {
  const Engine::State& state = engine.state();
  if (!state.vision)
    throw Error(ExitCode::kUsage, "the model cannot see images (" + state.info.path + ")",
                "crumb inspect says whether a model has a vision tower");
  const int64_t S = state.config.vision->image;
  if (std::ssize(pixels) != 3 * S * S)
    throw Error(ExitCode::kInternal, "an image of another size (expected 3 x " + std::to_string(S) +
                                         " x " + std::to_string(S) + " values, found " +
                                         std::to_string(pixels.size()) + ")");
  Step step(engine, pixels);
  {
    const std::lock_guard lock(state.pool_mutex);
    state.pool.run([&](const Worker& worker) {
      embed(step, worker);
      for (const Block& block : step.w.blocks) run_block(step, worker, block);
      finish(step, worker);
      project(step, worker);
    });
  }
  require_finite(step.out.rows);
  return std::move(step.out);
}

std::shared_ptr<const std::vector<float>> look(const Engine& engine, const Image& image) {
  if (!engine.config().vision) encode(engine, {});  // says that the model cannot see
  const models::VisionConfig& config = *engine.config().vision;
  return std::make_shared<const std::vector<float>>(
      encode(engine, normalise(fit(image, config), config)).rows);
}

}  // namespace crumb::vision

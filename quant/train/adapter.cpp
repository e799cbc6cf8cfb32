#include "quant/train/adapter.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <utility>

#include "engine/rng.h"
#include "models/errors.h"
#include "quant/train/layout.h"
#include "quant/train/ops.h"

namespace crumb::quant::train {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

template <class T>
std::span<T> part(std::span<T> all, int64_t at, int64_t n) {
  return all.subspan(size_of(at), size_of(n));
}

// Phi(x), the normal distribution.
float normal(float x) { return 0.5f * (1.0f + std::erf(x / std::numbers::sqrt2_v<float>)); }

// W1 f + b1, [R, H].
std::vector<float> inner(const AdapterLayout& l, std::span<const float> p,
                         std::span<const float> features) {
  const int64_t F = l.shape.features, H = l.shape.hidden;
  std::vector<float> z(size_of(std::ssize(features) / F * H));
  linear(features, part(p, l.w1_at, H * F), part(p, l.b1_at, H), F, z);
  return z;
}

std::vector<float> gelu(std::span<const float> z) {
  std::vector<float> y;
  for (const float v : z) y.push_back(v * normal(v));
  return y;
}

float factor_of(const AdapterLayout& l) {
  return static_cast<float>(l.shape.alpha / static_cast<double>(l.shape.rank));
}

void draw(std::span<float> w, int64_t columns, uint64_t seed, int64_t first) {
  const double bound = 1 / std::sqrt(static_cast<double>(columns));
  for (std::size_t i = 0; i < w.size(); ++i)
    w[i] = static_cast<float>(bound * (2 * uniform(seed, static_cast<uint64_t>(first) + i) - 1));
}

}  // namespace

AdapterLayout adapter_layout(const models::ModelConfig& config, const AdapterShape& shape) {
  const auto lawful = [](int64_t n, int64_t least) { return n >= least && n <= 65536; };
  if (!lawful(shape.features, 1) || !lawful(shape.hidden, 1) || !lawful(shape.rank, 0) ||
      !(shape.alpha > 0))
    throw Error(ExitCode::kUsage,
                "adapter (expected features, hidden, alpha above 0, rank of 0 or more)");
  AdapterLayout layout;
  layout.shape = shape;
  layout.dim = config.dim;
  const auto place = [&](int64_t n) {
    layout.size += n;
    return layout.size - n;
  };
  layout.w1_at = place(shape.hidden * shape.features);
  layout.b1_at = place(shape.hidden);
  layout.w2_at = place(config.dim * shape.hidden);
  layout.b2_at = place(config.dim);
  layout.projector = layout.size;
  if (shape.rank == 0) return layout;
  const ParameterLayout blocks = parameter_layout(config);
  for (std::size_t l = 0; l < blocks.layers.size(); ++l)
    for (const MatrixSlot& slot : blocks.layers[l])
      for (std::size_t i = 0; i < slot.names.size(); ++i) {
        AdapterMatrix m{slot.names[i], static_cast<int64_t>(l), slot.rows[i], slot.K, 0, 0};
        m.a_at = place(shape.rank * m.K);
        m.b_at = place(m.N * shape.rank);
        layout.matrices.push_back(std::move(m));
      }
  return layout;
}

std::vector<float> initial_adapter(const AdapterLayout& l, uint64_t seed) {
  std::vector<float> p(size_of(l.size));
  const std::span<float> all = p;
  const auto fill = [&](int64_t at, int64_t rows, int64_t columns) {
    draw(part(all, at, rows * columns), columns, seed, at);
  };
  fill(l.w1_at, l.shape.hidden, l.shape.features);
  fill(l.w2_at, l.dim, l.shape.hidden);
  for (const AdapterMatrix& m : l.matrices) fill(m.a_at, l.shape.rank, m.K);
  return p;
}

void add_low_rank(const AdapterLayout& l, const AdapterMatrix& m, std::span<const float> p,
                  std::span<float> w) {
  const auto b = part(p, m.b_at, m.N * l.shape.rank);
  std::vector<float> scaled(b.begin(), b.end());
  for (float& v : scaled) v *= factor_of(l);
  // dx = dy w, added to; of x only the number of rows is read.
  linear_backward(w, part(p, m.a_at, l.shape.rank * m.K), m.K, scaled, {w, {}, {}});
}

void low_rank_backward(const AdapterLayout& l, const AdapterMatrix& m, std::span<const float> p,
                       std::span<const float> dw, std::span<float> gradient) {
  const int64_t r = l.shape.rank;
  const auto a = part(p, m.a_at, r * m.K), b = part(p, m.b_at, m.N * r);
  std::vector<float> scaled(dw.begin(), dw.end());
  for (float& v : scaled) v *= factor_of(l);
  std::vector<float> db(size_of(m.N * r));
  linear(scaled, a, {}, m.K, db);  // dW A^T
  const auto to = part(gradient, m.b_at, m.N * r);
  std::transform(to.begin(), to.end(), db.begin(), to.begin(), std::plus<>());
  // dw = dy^T x with dy = B, x = dW: B^T dW.
  linear_backward(scaled, a, m.K, b, {{}, part(gradient, m.a_at, r * m.K), {}});
}

std::vector<float> project(const AdapterLayout& l, std::span<const float> p,
                           std::span<const float> features) {
  const std::vector<float> y = gelu(inner(l, p, features));
  std::vector<float> rows(size_of(std::ssize(features) / l.shape.features * l.dim));
  linear(y, part(p, l.w2_at, l.dim * l.shape.hidden), part(p, l.b2_at, l.dim), l.shape.hidden,
         rows);
  return rows;
}

void project_backward(const AdapterLayout& l, std::span<const float> p,
                      std::span<const float> features, std::span<const float> d_rows,
                      std::span<float> gradient) {
  const int64_t F = l.shape.features, H = l.shape.hidden;
  const std::vector<float> z = inner(l, p, features), y = gelu(z);
  std::vector<float> d(z.size());
  linear_backward(y, part(p, l.w2_at, l.dim * H), H, d_rows,
                  {d, part(gradient, l.w2_at, l.dim * H), part(gradient, l.b2_at, l.dim)});
  for (std::size_t i = 0; i < z.size(); ++i) {
    const float density = std::exp(-0.5f * z[i] * z[i]) * std::numbers::inv_sqrtpi_v<float> /
                          std::numbers::sqrt2_v<float>;
    d[i] *= normal(z[i]) + z[i] * density;
  }
  linear_backward(features, part(p, l.w1_at, H * F), F, d,
                  {{}, part(gradient, l.w1_at, H * F), part(gradient, l.b1_at, H)});
}

models::SourceModel with_adapter(models::SourceModel decoder, AdapterLayout layout,
                                 std::vector<float> parameters) {
  struct Kept {
    models::SourceModel decoder;
    AdapterLayout layout;
    std::vector<float> parameters;
  };
  const auto kept =
      std::make_shared<const Kept>(Kept{decoder, std::move(layout), std::move(parameters)});
  decoder.read = [kept](std::string_view name, std::span<float> out) {
    kept->decoder.read(name, out);
    for (const AdapterMatrix& m : kept->layout.matrices)
      if (m.name == name) add_low_rank(kept->layout, m, kept->parameters, out);
  };
  decoder.packed = {};
  decoder.description += " with an adapter";
  decoder.storage = kept;
  return decoder;
}

}  // namespace crumb::quant::train

#include "quant/qvlm/site_chain.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "models/errors.h"
#include "models/tensors.h"
#include "quant/rounded.h"
#include "quant/rtn.h"
#include "quant/scale_search.h"
#include "quant/train/attention.h"
#include "quant/train/ops.h"

namespace crumb::quant::qvlm {
namespace {

struct Matrix {
  const char* suffix;
  const char* bias;
};
// By site within a layer.
constexpr std::array<std::array<Matrix, 3>, 4> kMatrices = {
    {{{{"self_attn.q_proj", "self_attn.q_proj.bias"},
       {"self_attn.k_proj", "self_attn.k_proj.bias"},
       {"self_attn.v_proj", "self_attn.v_proj.bias"}}},
     {{{"self_attn.o_proj", nullptr}}},
     {{{"mlp.gate_proj", nullptr}, {"mlp.up_proj", nullptr}}},
     {{{"mlp.down_proj", nullptr}}}}};

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

const std::array<Matrix, 3>& matrices_of(int64_t site) { return kMatrices[size_of(site % 4)]; }

std::vector<float> read(const models::SourceModel& source, const std::string& name, int64_t n) {
  std::vector<float> values(size_of(n));
  source.read(name, values);
  return values;
}

void add(std::span<float> to, std::span<const float> from) {
  std::transform(to.begin(), to.end(), from.begin(), to.begin(), std::plus<>());
}

void rotate_rows(std::span<float> rows, int64_t K, const models::Rotation& rotation) {
  if (rotation.hadamard == 0) return;
  const auto signs = models::rotation_signs(rotation, K);
  for (std::size_t at = 0; at < rows.size(); at += size_of(K))
    rotate_row(rows.subspan(at, size_of(K)), rotation, signs);
}

}  // namespace

InputCodes input_codes(std::span<const float> x, int64_t K, int bits, double clip) {
  const auto levels = static_cast<float>((1 << (bits - 1)) - 1);
  InputCodes out{std::vector<int8_t>(x.size()), {}};
  for (std::size_t at = 0; at < x.size(); at += size_of(K)) {
    const auto row = x.subspan(at, size_of(K));
    float most = 0;
    for (const float v : row) most = std::max(most, std::abs(v));
    const float scale = static_cast<float>(clip) * most / levels;
    out.scales.push_back(scale);
    if (scale == 0) continue;
    for (std::size_t k = 0; k < row.size(); ++k)
      out.codes[at + k] =
          static_cast<int8_t>(std::clamp(std::nearbyint(row[k] / scale), -levels, levels));
  }
  return out;
}

SiteChain::SiteChain(const models::SourceModel& source, CalibrationWindows windows,
                     RoundingForm form)
    : source_(source),
      windows_(std::move(windows)),
      form_(form),
      context_(source.config, windows_.S) {
  const models::ModelConfig& c = source.config;
  models::require_whole(c, "the search of clips");
  if (windows_.count() < 1 || windows_.S < 2)
    throw Error(ExitCode::kUsage, "no windows to search on (expected at least one)");
  if (form.input_bits < 2 || form.input_bits > 8)
    throw Error(ExitCode::kUsage,
                "bits of inputs (expected 2 to 8, found " + std::to_string(form.input_bits) + ")");
  for (int64_t site = 0; site < 4; ++site)
    validate(
        {form.weight_bits, form.group, kernels::Grid::kSeq, ScaleSearch::kAbsMax, form.rotation}, 1,
        width(site), matrices(site).front());
  train::single_threaded_blas();
  for (int64_t l = 0; l < c.layers; ++l)
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"})
      gains_.push_back(read(source, models::layer_tensor(l, norm), c.dim));
  gains_.push_back(read(source, "model.norm.weight", c.dim));
  head_ = read(source, c.tied_head ? "model.embed_tokens" : "lm_head", c.vocab * c.dim);
}

int64_t SiteChain::width(int64_t site) const {
  return train::linear_input_width(source_.config, train::kLinearInputs[size_of(site % 4)]);
}

std::string SiteChain::name(int64_t site) const {
  return std::to_string(site / 4) + "." +
         std::string(train::linear_input_name(train::kLinearInputs[size_of(site % 4)]));
}

std::vector<std::string> SiteChain::matrices(int64_t site) const {
  std::vector<std::string> names;
  for (const Matrix& m : matrices_of(site))
    if (m.suffix != nullptr) names.push_back(models::layer_tensor(site / 4, m.suffix));
  return names;
}

ChainState SiteChain::start() const {
  ChainState state{embedded(source_, windows_.ids), {}};
  state.input.resize(state.stream.size());
  train::rmsnorm(state.stream, gains_.front(), source_.config.norm_eps, state.input);
  return state;
}

SiteWeights SiteChain::weights(int64_t site) const {
  const models::ModelConfig& c = source_.config;
  const std::array<int64_t, 3> rows =
      site % 4 == 0
          ? std::array{c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim}
      : site % 4 == 2 ? std::array{c.ffn, c.ffn, int64_t{0}}
                      : std::array{c.dim, int64_t{0}, int64_t{0}};
  SiteWeights w;
  for (std::size_t i = 0; i < 3; ++i) {
    const Matrix& m = matrices_of(site)[i];
    if (m.suffix == nullptr) continue;
    const int64_t K = width(site);
    w.matrices[i] = read(source_, models::layer_tensor(site / 4, m.suffix), rows[i] * K);
    require_finite(w.matrices[i], K, models::layer_tensor(site / 4, m.suffix));
    rotate_rows(w.matrices[i], K, form_.rotation);
    if (m.bias != nullptr && c.qkv_bias)
      w.biases[i] = read(source_, models::layer_tensor(site / 4, m.bias), rows[i]);
  }
  return w;
}

SiteWeights SiteChain::rounded(SiteWeights weights, int64_t site, double clip) const {
  const int64_t K = width(site);
  for (std::vector<float>& w : weights.matrices) {
    const int64_t N = std::ssize(w) / K;
    if (N == 0) continue;
    Rounded out = make_rounded(N, K, form_.weight_bits, form_.group, kernels::Grid::kSeq);
    for (int64_t n = 0; n < N; ++n) {
      const auto row = std::span<const float>(w).subspan(size_of(n * K), size_of(K));
      fit_row(row, {}, ScaleRule::kAbsMax, n, &out);
      for (int64_t g = 0; g < groups_of(out); ++g) {
        GroupFit fit = fit_of(out, n, g);
        fit.scale = nearest_scale(static_cast<double>(fit.scale) * clip);
        set_fit(&out, n, g, fit);
      }
      round_row(row, n, &out);
    }
    w = dequantize(out);
  }
  return weights;
}

std::vector<float> SiteChain::seen(int64_t site, const ChainState& state) const {
  std::vector<float> x = state.input;
  rotate_rows(x, width(site), form_.rotation);
  return x;
}

void SiteChain::attend(std::array<std::vector<float>, 3>& qkv, std::vector<float>* out) const {
  const models::ModelConfig& c = source_.config;
  const int64_t S = windows_.S;
  out->resize(qkv[0].size());
  std::vector<float> lse(size_of(c.heads * S));
  for (int64_t w = 0; w < windows_.count(); ++w) {
    const auto part = [&](std::vector<float>& all, int64_t heads) {
      const auto n = size_of(S * heads * c.head_dim);
      return std::span(all).subspan(size_of(w) * n, n);
    };
    const auto q = part(qkv[0], c.heads), k = part(qkv[1], c.kv_heads);
    train::rope(q, c.head_dim, context_.cos(), context_.sin());
    train::rope(k, c.head_dim, context_.cos(), context_.sin());
    train::attention({S, c.heads, c.kv_heads, c.head_dim}, {q, k, part(qkv[2], c.kv_heads)},
                     part(*out, c.heads), lse);
  }
}

void SiteChain::run(int64_t site, const SiteWeights& weights, const InputCodes* codes,
                    ChainState* state) const {
  const models::ModelConfig& c = source_.config;
  const int64_t K = width(site), T = tokens();
  std::vector<float> x;
  if (codes != nullptr) {
    x.resize(codes->codes.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<float>(codes->codes[i]) * codes->scales[i / size_of(K)];
  } else {
    x = seen(site, *state);
  }
  std::array<std::vector<float>, 3> y;
  for (std::size_t i = 0; i < 3; ++i) {
    y[i].resize(size_of(T * (std::ssize(weights.matrices[i]) / K)));
    if (!y[i].empty()) train::linear(x, weights.matrices[i], weights.biases[i], K, y[i]);
  }
  if (site % 4 == 0) {
    attend(y, &state->input);
  } else if (site % 4 == 2) {
    state->input.resize(y[0].size());
    train::silu_mul(y[0], y[1], state->input);
  } else {
    add(state->stream, y[0]);
    state->input.resize(state->stream.size());
    train::rmsnorm(state->stream, gains_[size_of((site + 1) / 2)], c.norm_eps, state->input);
  }
}

std::vector<float> SiteChain::logits(const ChainState& last, int64_t first, int64_t n) const {
  const models::ModelConfig& c = source_.config;
  std::vector<float> z(size_of(n * c.vocab));
  train::linear(std::span(last.input).subspan(size_of(first * c.dim), size_of(n * c.dim)), head_,
                {}, c.dim, z);
  return z;
}

}  // namespace crumb::quant::qvlm

#include "quant/apq/meter.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "kernels/pack.h"
#include "models/errors.h"
#include "models/tensors.h"
#include "quant/block_job.h"
#include "quant/parallel.h"
#include "quant/rtn.h"
#include "quant/train/ops.h"

namespace crumb::quant::apq {
namespace {

constexpr int64_t kRows = 32;  // tokens whose logits are held at a time

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// Products in float in lanes, runs of them in double.
double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t at = 0; at < a.size(); at += 256) {
    float lanes[16] = {};
    const std::size_t stop = std::min(at + 256, a.size());
    for (std::size_t i = at; i < stop; ++i) lanes[i % 16] += a[i] * b[i];
    for (const float lane : lanes) sum += static_cast<double>(lane);
  }
  return sum;
}

double sum_of(std::span<const float> x) {
  double sum = 0;
  for (std::size_t at = 0; at < x.size(); at += 256) {
    float lanes[16] = {};
    const std::size_t stop = std::min(at + 256, x.size());
    for (std::size_t i = at; i < stop; ++i) lanes[i % 16] += x[i];
    for (const float lane : lanes) sum += static_cast<double>(lane);
  }
  return sum;
}

// z -> exp(z - max), their sum.
double exponentials(std::span<float> z, float* max) {
  *max = *std::ranges::max_element(z);
  train::exp_shifted(z, *max);
  return sum_of(z);
}

}  // namespace

train::BlockWeights rounded_block(const models::ModelConfig& config,
                                  const train::BlockWeights& whole, const KeptLayer& kept,
                                  const SiteBits* bits, const Method& method) {
  train::BlockWeights block = prune_block(config, whole, kept);
  if (bits == nullptr) return block;
  const train::BlockShape shape = train::shape_of(config, block);
  const ScaleSearch search =
      method.rule == ScaleRule::kAbsMax ? ScaleSearch::kAbsMax : ScaleSearch::kMse;
  for (const BlockMatrix& m : block_matrices()) {
    const int width = (*bits)[static_cast<std::size_t>(m.input)];
    if (width == 32) continue;
    std::vector<float>& w = block.*m.member;
    const int64_t K = train::linear_input_width(shape, m.input), N = std::ssize(w) / K;
    const models::PackedData data =
        rtn(w, N, K, {width, method.group, method.grid, search, {}}, std::string(m.suffix), 1);
    const kernels::PackedMatrix packed = view(data);
    for (int64_t n = 0; n < N; ++n)
      kernels::dequantize_row(packed, n, std::span(w).subspan(size_of(n * K), size_of(K)));
  }
  return block;
}

template <class Work>
void SubnetMeter::for_scored(std::span<const float> stream, const Work& work) const {
  const int64_t D = source_.config.dim, S = windows_.S, first = S / 8;
  std::size_t at = 0;
  for (int64_t w = 0; w < windows_.count(); ++w)
    for (int64_t t = first; t < S; t += kRows) {
      const int64_t n = std::min(kRows, S - t);
      work(at, n, stream.subspan(size_of((w * S + t) * D), size_of(n * D)));
      at += size_of(n);
    }
}

SubnetMeter::SubnetMeter(const models::SourceModel& source, CalibrationWindows windows,
                         const Method& method, int threads, const ProgressFn& progress)
    : source_(source),
      windows_(std::move(windows)),
      method_(method),
      threads_(threads),
      context_(source.config, windows_.S) {
  const models::ModelConfig& c = source.config;
  models::require_whole(c, "the joint search");
  models::require_blind(c, "the joint search");
  if (windows_.count() < 1 || windows_.S < 2)
    throw Error(ExitCode::kUsage, "no windows to measure on (expected at least one)");
  if (method.rotation.hadamard != 0)
    throw Error(ExitCode::kUsage, "subnets are rounded without a rotation");
  train::single_threaded_blas();
  start_ = embedded(source, windows_.ids);
  head_.resize(size_of(c.vocab * c.dim));
  gain_.resize(size_of(c.dim));
  source.read(c.tied_head ? "model.embed_tokens" : "lm_head", head_);
  source.read("model.norm.weight", gain_);
  std::vector<float> stream = start_;
  const auto size = size_of(windows_.S * c.dim);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    if (progress && !progress({"whole model", "", layer, c.layers})) throw Interrupted{};
    const train::BlockWeights weights = train::read_block(source, layer);
    parallel_rows(windows_.count(), threads_, [&](int64_t begin, int64_t end) {
      train::BlockActivations activations(c, windows_.S);
      for (int64_t i = begin; i < end; ++i) {
        const auto x = std::span(stream).subspan(size_of(i) * size, size);
        train::block_forward(context_, weights, x, activations, x);
      }
    });
  }
  const auto V = size_of(c.vocab);
  predicted_.resize(size_of(tokens()) * V);
  entropy_.resize(size_of(tokens()));
  for_scored(stream, [&](std::size_t at, int64_t n, std::span<const float> x) {
    const auto p = std::span(predicted_).subspan(at * V, size_of(n) * V);
    std::vector<float> normed(x.size());
    train::rmsnorm(x, gain_, c.norm_eps, normed);
    train::linear(normed, head_, {}, c.dim, p);
    for (int64_t t = 0; t < n; ++t) {
      const auto row = p.subspan(size_of(t) * V, V);
      const std::vector<float> z(row.begin(), row.end());
      float max = 0;
      const double sum = exponentials(row, &max);
      for (float& v : row) v = static_cast<float>(static_cast<double>(v) / sum);
      entropy_[at + size_of(t)] = dot(row, z) - static_cast<double>(max) - std::log(sum);
    }
  });
}

int64_t SubnetMeter::tokens() const { return windows_.count() * (windows_.S - windows_.S / 8); }

double SubnetMeter::divergence(std::span<const float> stream) const {
  const models::ModelConfig& c = source_.config;
  const auto V = size_of(c.vocab);
  double total = 0;
  std::vector<float> normed, z;
  for_scored(stream, [&](std::size_t at, int64_t n, std::span<const float> x) {
    normed.resize(x.size());
    z.resize(size_of(n) * V);
    train::rmsnorm(x, gain_, c.norm_eps, normed);
    train::linear(normed, head_, {}, c.dim, z);
    for (std::size_t t = 0; t < size_of(n); ++t) {
      const auto row = std::span(z).subspan(t * V, V);
      const double seen = dot(std::span(predicted_).subspan((at + t) * V, V), row);
      float max = 0;
      const double sum = exponentials(row, &max);
      total += entropy_[at + t] - seen + static_cast<double>(max) + std::log(sum);
    }
  });
  return std::max(0.0, total / static_cast<double>(tokens()));
}

std::vector<double> SubnetMeter::measure(std::span<const Candidate> candidates,
                                         const ProgressFn& progress) const {
  const models::ModelConfig& c = source_.config;
  const auto count = std::ssize(candidates);
  std::vector<std::vector<float>> streams(candidates.size(), start_);
  std::vector<std::size_t> next(candidates.size());  // of candidate.pruning.kept
  const auto size = size_of(windows_.S * c.dim);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    if (progress && !progress({"subnets", "", layer, c.layers + 1})) throw Interrupted{};
    const train::BlockWeights whole = train::read_block(source_, layer);
    parallel_rows(count, threads_, [&](int64_t begin, int64_t end) {
      train::BlockActivations activations(c, windows_.S);
      for (int64_t i = begin; i < end; ++i) {
        const Candidate& one = candidates[size_of(i)];
        std::size_t& at = next[size_of(i)];
        if (at == one.pruning.kept.size() || one.pruning.kept[at].source != layer) continue;
        const train::BlockWeights block = rounded_block(
            c, whole, one.pruning.kept[at], one.bits.empty() ? nullptr : &one.bits[at], method_);
        ++at;
        for (int64_t w = 0; w < windows_.count(); ++w) {
          const auto x = std::span(streams[size_of(i)]).subspan(size_of(w) * size, size);
          train::block_forward(context_, block, x, activations, x);
        }
      }
    });
  }
  if (progress && !progress({"subnets", "head", c.layers, c.layers + 1})) throw Interrupted{};
  std::vector<double> kl(candidates.size());
  parallel_rows(count, threads_, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kl[size_of(i)] = divergence(streams[size_of(i)]);
  });
  return kl;
}

}  // namespace crumb::quant::apq

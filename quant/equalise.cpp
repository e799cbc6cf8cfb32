#include "quant/equalise.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>

#include "quant/linalg.h"

namespace crumb::quant {
namespace {

using train::BlockWeights;
using train::LinearInput;

constexpr double kSmallestScale = 1e-4;  // of AWQ's s before it is normalised
constexpr double kSmallestPart = 1e-8;   // QuIP's clamp of diagonals that are divided by their max

// Folding into v and up comes first: it changes the matrices of attn_in and mlp_in.
constexpr LinearInput kOrder[] = {LinearInput::kOutput, LinearInput::kDown, LinearInput::kAttention,
                                  LinearInput::kMlp};

std::size_t at(LinearInput input) { return static_cast<std::size_t>(input); }

std::vector<std::span<const float>> matrices_of(const BlockWeights& weights, LinearInput input) {
  std::vector<std::span<const float>> matrices;
  for (const auto member : readers(input)) matrices.emplace_back(weights.*member);
  return matrices;
}

void make_foldable(const models::ModelConfig& config, LinearInput input, std::span<float> t) {
  if (input == LinearInput::kOutput) share_over_heads(t, config.heads, config.kv_heads);
}

// [K]: mean |w_k| over the rows of all matrices.
std::vector<double> mean_weight(std::span<const std::span<const float>> matrices, int64_t K) {
  std::vector<double> sum(static_cast<std::size_t>(K));
  double rows = 0;
  for (const auto& w : matrices) {
    for (std::size_t i = 0; i < w.size(); ++i) sum[i % sum.size()] += std::abs(w[i]);
    rows += static_cast<double>(std::ssize(w) / K);
  }
  for (double& x : sum) x /= rows;
  return sum;
}

// What a matrix's error is divided by: what it makes, tr(W H W^T), or 1.
std::vector<double> divisors(std::span<const std::span<const float>> matrices,
                             std::span<const double> H, int64_t K, const EqualiseOptions& options,
                             int threads) {
  std::vector<double> all(matrices.size(), 1);
  if (options.norm != OutputNorm::kRelative) return all;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::vector<float> nothing(matrices[i].size());
    const double signal = proxy_loss(matrices[i], nothing, std::ssize(nothing) / K, H, K, threads);
    if (signal > 0) all[i] = signal;
  }
  return all;
}

// Of rounding the matrices to nearest as they are fed t o x.
double output_error(std::span<const std::span<const float>> matrices,
                    std::span<const double> divide, std::span<const float> t,
                    std::span<const double> H, const EqualiseOptions& options, int threads) {
  const auto K = std::ssize(t);
  std::vector<float> h(t.size());  // diagonal of the input t o x
  for (std::size_t k = 0; k < h.size(); ++k)
    h[k] = t[k] * t[k] * static_cast<float>(H[k * h.size() + k]);
  double total = 0;
  for (std::size_t matrix = 0; matrix < matrices.size(); ++matrix) {
    const auto w = matrices[matrix];
    std::vector<float> scaled(w.begin(), w.end());
    divide_columns(scaled, t);
    const int64_t N = std::ssize(w) / K;
    auto rounded = dequantize(round_nearest(scaled, N, K, h, options.grid, threads));
    for (std::size_t i = 0; i < rounded.size(); ++i) rounded[i] *= t[i % t.size()];
    for (const double loss : row_losses(w, rounded, N, H, K, threads))
      total += options.norm == OutputNorm::kAbsolute ? std::sqrt(std::max(loss, 0.0))
                                                     : loss / divide[matrix];
  }
  return total;
}

// t = 1 / s for one alpha.
std::vector<float> awq_candidate(std::span<const float> mean_abs, std::span<const double> mean_w,
                                 double alpha) {
  std::vector<double> s(mean_abs.size());
  for (std::size_t k = 0; k < s.size(); ++k) {
    s[k] = std::pow(static_cast<double>(mean_abs[k]), alpha);
    if (!mean_w.empty()) s[k] /= std::pow(mean_w[k], 1 - alpha) + kSmallestScale;
    s[k] = std::max(s[k], kSmallestScale);
  }
  const auto [low, high] = std::minmax_element(s.begin(), s.end());
  const double middle = std::sqrt(*low * *high);
  std::vector<float> t(s.size());
  for (std::size_t k = 0; k < t.size(); ++k) t[k] = static_cast<float>(middle / s[k]);
  return t;
}

std::vector<float> sinkhorn_scales(std::span<const std::span<const float>> matrices, int64_t K,
                                   const EqualiseOptions& options, int threads) {
  switch (options.shared) {
    case SharedScale::kStacked:
      break;
    case SharedScale::kLinear:
      return shared_columns(matrices.last(1), K, options.sinkhorn, threads);  // v, o, up, down
    case SharedScale::kMean: {
      std::vector<double> logs(static_cast<std::size_t>(K));
      for (std::size_t i = 0; i < matrices.size(); ++i) {
        const auto t = shared_columns(matrices.subspan(i, 1), K, options.sinkhorn, threads);
        for (std::size_t k = 0; k < t.size(); ++k) logs[k] += std::log(static_cast<double>(t[k]));
      }
      std::vector<float> t;
      for (const double x : logs)
        t.push_back(static_cast<float>(std::exp(x / static_cast<double>(matrices.size()))));
      return t;
    }
  }
  return shared_columns(matrices, K, options.sinkhorn, threads);
}

struct Chosen {
  std::vector<float> t;
  double alpha = 0;
};

// At most `limit` rows of w [N, K], evenly spaced; 0: all.
std::vector<float> some_rows(std::span<const float> w, int64_t K, int64_t limit) {
  const int64_t N = std::ssize(w) / K;
  const int64_t count = limit == 0 ? N : std::min(N, limit);
  std::vector<float> rows;
  for (int64_t i = 0; i < count; ++i) {
    const auto row =
        w.subspan(static_cast<std::size_t>(i * N / count * K), static_cast<std::size_t>(K));
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return rows;
}

// `make_valid` changes a candidate into one that can be folded. `before`, if not empty, is the t
// that the matrices have been divided by already: every candidate is also tried with less of it.
template <class MakeValid>
Chosen awq(std::span<const std::span<const float>> matrices, std::span<const double> H,
           std::span<const float> mean_abs, std::span<const float> before,
           const EqualiseOptions& options, int threads, const MakeValid& make_valid) {
  const auto mean_w =
      options.by_weight ? mean_weight(matrices, std::ssize(mean_abs)) : std::vector<double>();
  std::vector<std::vector<float>> sampled;
  for (const auto& w : matrices)
    sampled.push_back(some_rows(w, std::ssize(mean_abs), options.rows));
  const std::vector<std::span<const float>> views(sampled.begin(), sampled.end());
  const auto divide = divisors(views, H, std::ssize(mean_abs), options, threads);
  Chosen best;
  double least = std::numeric_limits<double>::infinity();
  const int rounds = before.empty() ? 1 : 1 + options.back;
  for (int i = 0; i < rounds * options.points; ++i) {
    const double alpha = static_cast<double>(i % options.points) / options.points;
    auto t = awq_candidate(mean_abs, mean_w, alpha);
    if (const int step = i / options.points; step > 0) {
      const float less = static_cast<float>(step) / static_cast<float>(options.back);
      for (std::size_t k = 0; k < t.size(); ++k) t[k] *= std::pow(before[k], -less);
    }
    make_valid(t);
    const double error = output_error(views, divide, t, H, options, threads);
    if (error >= least) continue;
    least = error;
    best = {std::move(t), alpha};
  }
  return best;
}

std::vector<float> diagonal(std::span<const std::span<const float>> matrices,
                            const InputStatistics& statistics) {
  const auto K = static_cast<std::size_t>(statistics.K);
  std::vector<double> h(K);
  std::vector<double> w2(K);
  for (std::size_t k = 0; k < K; ++k) h[k] = statistics.H[k * K + k];
  for (const auto& w : matrices)
    for (std::size_t i = 0; i < w.size(); ++i) w2[i % K] += static_cast<double>(w[i]) * w[i];
  for (auto* values : {&h, &w2}) {
    const double largest = *std::max_element(values->begin(), values->end());
    for (double& x : *values) x = largest > 0 ? std::max(x / largest, kSmallestPart) : 1;
  }
  std::vector<float> t(K);
  for (std::size_t k = 0; k < K; ++k) t[k] = static_cast<float>(std::pow(w2[k] / h[k], 0.25));
  return t;
}

// What equalise() carries through the inputs.
struct Job {
  const models::ModelConfig& config;
  const EqualiseOptions& options;
  BlockWeights& weights;
  BlockStatistics* statistics;
  BlockScales& scales;
  int threads;

  std::vector<LinearInput> inputs() const {
    std::vector<LinearInput> wanted;
    std::copy_if(std::begin(kOrder), std::end(kOrder), std::back_inserter(wanted),
                 [&](LinearInput input) { return !options.skip[at(input)]; });
    return wanted;
  }

  void apply(LinearInput input, std::span<const float> t) {
    fold(config, input, t, &weights);
    if (statistics != nullptr) scale_statistics(t, &statistics->inputs[at(input)]);
    auto& total = scales.t[at(input)];
    if (total.empty()) total.assign(t.size(), 1.0f);
    multiply(total, t);
  }

  void sinkhorn_all() {
    for (int round = 0; round < options.repeats; ++round)
      for (const LinearInput input : inputs()) {
        auto t = sinkhorn_scales(matrices_of(weights, input),
                                 train::linear_input_width(config, input), options, threads);
        make_foldable(config, input, t);
        apply(input, t);
      }
  }

  // mean_abs as it was before anything was folded.
  void awq_all(const std::array<std::vector<float>, train::kLinearInputs.size()>& mean_abs) {
    for (const LinearInput input : inputs()) {
      const auto chosen = awq(matrices_of(weights, input), statistics->of(input).H,
                              mean_abs[at(input)], scales.t[at(input)], options, threads,
                              [&](std::span<float> t) { make_foldable(config, input, t); });
      scales.alpha[at(input)] = chosen.alpha;
      apply(input, chosen.t);
    }
  }
};

}  // namespace

std::vector<std::vector<float> BlockWeights::*> readers(LinearInput input) {
  switch (input) {
    case LinearInput::kAttention:
      return {&BlockWeights::q, &BlockWeights::k, &BlockWeights::v};
    case LinearInput::kOutput:
      return {&BlockWeights::o};
    case LinearInput::kMlp:
      return {&BlockWeights::gate, &BlockWeights::up};
    case LinearInput::kDown:
      break;
  }
  return {&BlockWeights::down};
}

void fold(const models::ModelConfig& config, LinearInput input, std::span<const float> t,
          BlockWeights* weights) {
  assert(std::ssize(t) == train::linear_input_width(config, input));
  for (const auto member : readers(input)) divide_columns(weights->*member, t);
  switch (input) {
    case LinearInput::kAttention:
      return multiply(weights->attn_norm, t);
    case LinearInput::kMlp:
      return multiply(weights->mlp_norm, t);
    case LinearInput::kDown:
      return multiply_rows(weights->up, t, config.dim);
    case LinearInput::kOutput:
      break;
  }
  std::vector<float> equal(t.begin(), t.end());
  const auto rows = share_over_heads(equal, config.heads, config.kv_heads);
  multiply_rows(weights->v, rows, config.dim);
  if (!weights->v_bias.empty()) multiply(weights->v_bias, rows);
}

void scale_statistics(std::span<const float> t, InputStatistics* statistics) {
  const auto K = t.size();
  assert(statistics->K == std::ssize(t));
  for (std::size_t i = 0; i < K; ++i)
    for (std::size_t j = 0; j < K; ++j)
      statistics->H[i * K + j] *= static_cast<double>(t[i]) * static_cast<double>(t[j]);
  multiply(statistics->mean_abs, t);
  multiply(statistics->max_abs, t);
}

std::vector<float> column_scales(std::span<const std::span<const float>> matrices, int64_t K,
                                 const InputStatistics* statistics, const EqualiseOptions& options,
                                 int threads) {
  assert(statistics != nullptr || !needs_statistics(options.method));
  const auto as_is = [](std::span<float>) {};
  switch (options.method) {
    case Equalise::kNone:
      break;
    case Equalise::kSinkhorn:
      return shared_columns(matrices, K, options.sinkhorn, threads);
    case Equalise::kAwq:
      return awq(matrices, statistics->H, statistics->mean_abs, {}, options, threads, as_is).t;
    case Equalise::kAsinq: {
      auto t = shared_columns(matrices, K, options.sinkhorn, threads);
      std::vector<std::vector<float>> normalised;
      for (const auto& w : matrices) {
        normalised.emplace_back(w.begin(), w.end());
        divide_columns(normalised.back(), t);
      }
      InputStatistics scaled = *statistics;
      scale_statistics(t, &scaled);
      const std::vector<std::span<const float>> views(normalised.begin(), normalised.end());
      multiply(t, awq(views, scaled.H, statistics->mean_abs, t, options, threads, as_is).t);
      return t;
    }
    case Equalise::kDiagonal:
      return diagonal(matrices, *statistics);
  }
  return std::vector<float>(static_cast<std::size_t>(K), 1.0f);
}

BlockScales equalise(const models::ModelConfig& config, const EqualiseOptions& options,
                     BlockWeights* weights, BlockStatistics* statistics, int threads) {
  assert(statistics != nullptr || !needs_statistics(options.method));
  BlockScales scales;
  Job job = {config, options, *weights, statistics, scales, threads};
  std::array<std::vector<float>, train::kLinearInputs.size()> mean_abs;
  if (statistics != nullptr)
    for (std::size_t i = 0; i < mean_abs.size(); ++i) mean_abs[i] = statistics->inputs[i].mean_abs;
  switch (options.method) {
    case Equalise::kNone:
      break;
    case Equalise::kSinkhorn:
      job.sinkhorn_all();
      break;
    case Equalise::kAwq:
      job.awq_all(mean_abs);
      break;
    case Equalise::kAsinq:
      job.sinkhorn_all();
      job.awq_all(mean_abs);
      break;
    case Equalise::kDiagonal:
      for (const LinearInput input : job.inputs()) {
        auto t = diagonal(matrices_of(*weights, input), statistics->of(input));
        make_foldable(config, input, t);
        job.apply(input, t);
      }
      break;
  }
  return scales;
}

}  // namespace crumb::quant

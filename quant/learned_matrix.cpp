#include "quant/learned_matrix.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/float16.h"
#include "quant/parallel.h"
#include "quant/rotation.h"

namespace crumb::quant {
namespace {

constexpr uint64_t kLowRankSeed = 1;

std::vector<float> in_grid_space(std::span<const float> w, const models::Rotation& rotation,
                                 int64_t K, int threads) {
  std::vector<float> turned(w.begin(), w.end());
  if (rotation.hadamard > 0) rotate_rows(turned, K, rotation, threads);
  return turned;
}

}  // namespace

LearnedMatrix::LearnedMatrix(std::span<const float> w, const models::Rotation& rotation,
                             Rounded start, LearnedForm form, int threads)
    : rotation_(rotation), form_(form) {
  const auto turned = in_grid_space(w, rotation, start.K, threads);
  quant_ = train::fake_quant_from(turned, std::move(start));
  const Rounded& r = quant_.rounded;
  scales_ = {std::vector<float>(r.scales.size()), std::vector<float>(r.scales.size())};
  d_scales_.resize(r.scales.size());
  if (form == LearnedForm::kLowRank) {
    base_ = quant_.master;
    low_rank_ = LowRankDivisor(r.N, r.K, kLowRankSeed);
    return;
  }
  weights_ = {std::vector<float>(turned.size()), std::vector<float>(turned.size())};
  if (form == LearnedForm::kMaster) {
    start_scales_.resize(r.scales.size());
    std::transform(r.scales.begin(), r.scales.end(), start_scales_.begin(), kernels::f16_to_f32);
    return;
  }
  const auto rows = static_cast<std::size_t>(r.N);
  base_ = quant_.master;
  divisor_.resize(base_.size());
  row_divisor_.resize(rows);
  rows_ = {std::vector<float>(rows), std::vector<float>(rows)};
}

void LearnedMatrix::forward(std::span<float> plain, int threads) {
  train::fake_quantize(&quant_, plain, threads);
  if (rotation_.hadamard > 0) unrotate_rows(plain, quant_.rounded.K, rotation_, threads);
}

void LearnedMatrix::backward(std::span<float> G, const train::AdamStep& weights,
                             const train::AdamStep& scales, int threads) {
  if (rotation_.hadamard > 0) rotate_rows(G, quant_.rounded.K, rotation_, threads);
  train::fake_quantize_backward(quant_, G, G, d_scales_, threads);
  if (form_ == LearnedForm::kMaster)
    move_masters(G, weights, threads);
  else if (form_ == LearnedForm::kDivisor)
    move_divisors(G, weights, threads);
  else
    move_low_rank(G, weights, threads);
  train::adam(scales, d_scales_, 1.0f, quant_.log_scale, scales_.mean, scales_.square);
}

void LearnedMatrix::move_masters(std::span<const float> G, const train::AdamStep& step,
                                 int threads) {
  const Rounded& r = quant_.rounded;
  const int64_t groups = groups_of(r);
  parallel_rows(r.N, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * groups; i < end * groups; ++i) {
      const auto at = static_cast<std::size_t>(i / groups * r.K + i % groups * r.group);
      const auto size = static_cast<std::size_t>(std::min(r.group, r.K - i % groups * r.group));
      train::AdamStep scaled = step;
      scaled.rate *= start_scales_[static_cast<std::size_t>(i)];
      train::adam(scaled, G.subspan(at, size), 1.0f, std::span(quant_.master).subspan(at, size),
                  std::span(weights_.mean).subspan(at, size),
                  std::span(weights_.square).subspan(at, size));
    }
  });
}

void LearnedMatrix::move_low_rank(std::span<float> G, const train::AdamStep& step, int threads) {
  const auto K = static_cast<std::size_t>(quant_.rounded.K);
  const auto rows = [&](const auto& work) {
    parallel_rows(quant_.rounded.N, threads, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<std::size_t>(begin) * K; i < static_cast<std::size_t>(end) * K; ++i)
        work(i);
    });
  };
  rows([&](std::size_t i) { G[i] *= -quant_.master[i]; });  // dL/dS
  low_rank_.step(G, step, threads);
  low_rank_.product(G, threads);
  rows([&](std::size_t i) { quant_.master[i] = base_[i] * std::exp(-G[i]); });
}

void LearnedMatrix::move_divisors(std::span<float> G, const train::AdamStep& step, int threads) {
  const Rounded& r = quant_.rounded;
  const auto K = static_cast<std::size_t>(r.K);
  parallel_rows(r.N, threads, [&](int64_t begin, int64_t end) {
    for (auto n = static_cast<std::size_t>(begin); n < static_cast<std::size_t>(end); ++n) {
      const auto g = G.subspan(n * K, K);
      const auto master = std::span(quant_.master).subspan(n * K, K);
      const auto divisor = std::span(divisor_).subspan(n * K, K);
      double sum = 0;
      for (std::size_t k = 0; k < K; ++k) {
        g[k] *= -master[k];  // dL/dS2
        sum += static_cast<double>(g[k]);
      }
      const auto row = static_cast<float>(sum);  // dL/ds3
      train::adam(step, g, 1.0f, divisor, std::span(weights_.mean).subspan(n * K, K),
                  std::span(weights_.square).subspan(n * K, K));
      train::adam(step, {&row, 1}, 1.0f, std::span(row_divisor_).subspan(n, 1),
                  std::span(rows_.mean).subspan(n, 1), std::span(rows_.square).subspan(n, 1));
      const float* base = base_.data() + n * K;
      for (std::size_t k = 0; k < K; ++k)
        master[k] = base[k] * std::exp(-divisor[k] - row_divisor_[n]);
    }
  });
}

}  // namespace crumb::quant

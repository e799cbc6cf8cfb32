#include "quant/sensitivity.h"

#include <algorithm>
#include <cassert>

#include "kernels/layout.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

struct Job {
  std::span<const float> w;
  const Factor& factor;
  std::span<const float> row_weights;
  int64_t N, K;
};

// Rows [32 s, 32 s + 32): [columns] the shares of each block of 64 columns.
std::vector<double> strip_shares(const Job& job, const std::vector<float>& rounded, int64_t s) {
  const int64_t K = job.K;
  const int64_t first = s * kernels::kStripRows;
  const int64_t rows = std::min(kernels::kStripRows, job.N - first);
  std::vector<double> error(static_cast<std::size_t>(rows * K));
  std::vector<double> product(error.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < K; ++j) {
      const auto at =
          static_cast<std::size_t>((first + r) * K + job.factor.order[static_cast<std::size_t>(j)]);
      error[static_cast<std::size_t>(r * K + j)] =
          static_cast<double>(job.w[at]) - static_cast<double>(rounded[at]);
    }
  gemm({rows, K, K}, 1.0, error.data(), K, job.factor.M.data(), K, 0.0, product.data(), K);
  std::vector<double> shares(static_cast<std::size_t>(kernels::group_count(K, kCostColumns)));
  for (int64_t r = 0; r < rows; ++r) {
    const double weight =
        0.5 * (job.row_weights.empty()
                   ? 1.0
                   : static_cast<double>(job.row_weights[static_cast<std::size_t>(first + r)]));
    for (int64_t j = 0; j < K; ++j) {
      const double p = product[static_cast<std::size_t>(r * K + j)];
      const auto position = static_cast<std::size_t>(j);
      shares[static_cast<std::size_t>(job.factor.order[position] / kCostColumns)] +=
          weight * job.factor.D[position] * p * p;
    }
  }
  return shares;
}

}  // namespace

MatrixCosts measure_costs(const std::string& name, std::span<const float> w, int64_t N, int64_t K,
                          const Factor& factor, std::span<const float> row_weights,
                          const LdlqOptions& options, int threads) {
  assert(std::ssize(w) == N * K && factor.K == K);
  assert(row_weights.empty() || std::ssize(row_weights) == N);
  use_one_blas_thread();
  MatrixCosts costs;
  costs.name = name;
  costs.N = N;
  costs.K = K;
  const Job job{w, factor, row_weights, N, K};
  const int64_t strips = kernels::strip_count(N);
  for (std::size_t i = 0; i < kWidths.size(); ++i) {
    LdlqOptions at_width = options;
    at_width.bits = kWidths[i];
    const std::vector<float> rounded = dequantize(ldlq(w, N, K, factor, at_width, threads));
    std::vector<std::vector<double>> shares(static_cast<std::size_t>(strips));
    parallel_rows(strips, threads, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s)
        shares[static_cast<std::size_t>(s)] = strip_shares(job, rounded, s);
    });
    costs.columns[i].resize(static_cast<std::size_t>(kernels::group_count(K, kCostColumns)));
    for (const auto& strip : shares) {
      double sum = 0;
      for (std::size_t c = 0; c < strip.size(); ++c) {
        sum += strip[c];
        costs.columns[i][c] += strip[c];
      }
      costs.strips[i].push_back(sum);
    }
  }
  return costs;
}

}  // namespace crumb::quant

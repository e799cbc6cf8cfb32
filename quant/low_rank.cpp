#include "quant/low_rank.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

#include "engine/rng.h"
#include "quant/blas.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr int64_t kTile = 64;  // rows or columns of a piece of work

blasint as_blas(int64_t n) { return static_cast<blasint>(n); }

struct Shape {
  int64_t N, K, rank;
};
Shape shape_of(const LowRankValues& v) {
  const int64_t N = std::ssize(v.rows), K = std::ssize(v.columns);
  const int64_t rank = std::ssize(v.left) / N;
  assert(std::ssize(v.left) == N * rank && std::ssize(v.right) == rank * K);
  return {N, K, rank};
}

// Tiles of kTile of n, divided over threads.
template <class Work>
void in_tiles(int64_t n, int threads, const Work& work) {
  parallel_rows((n + kTile - 1) / kTile, threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile)
      work(tile * kTile, std::min(kTile, n - tile * kTile));
  });
}

}  // namespace

int64_t low_rank(int64_t N, int64_t K) { return std::max<int64_t>(1, std::min(N, K) / 4); }

LowRankValues low_rank_start(int64_t N, int64_t K, int64_t rank, uint64_t seed) {
  const auto zeros = [](int64_t n) { return std::vector<float>(static_cast<std::size_t>(n)); };
  LowRankValues values{zeros(N * rank), zeros(rank * K), zeros(N), zeros(K)};
  const double deviation = 1 / std::sqrt(static_cast<double>(rank));
  for (std::size_t i = 0; i < values.right.size(); ++i) {  // Box and Muller
    const double u = uniform(seed, 2 * i), v = uniform(seed, 2 * i + 1);
    values.right[i] = static_cast<float>(deviation * std::sqrt(-2 * std::log(1 - u)) *
                                         std::cos(2 * std::numbers::pi * v));
  }
  return values;
}

void low_rank_product(const LowRankValues& values, std::span<float> S, int threads) {
  const auto [N, K, rank] = shape_of(values);
  load_blas();
  in_tiles(N, threads, [&, K = K, rank = rank](int64_t first, int64_t rows) {
    float* to = S.data() + first * K;
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t k = 0; k < K; ++k)
        to[n * K + k] = values.rows[static_cast<std::size_t>(first + n)] +
                        values.columns[static_cast<std::size_t>(k)];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_blas(rows), as_blas(K), as_blas(rank),
                1.0f, values.left.data() + first * rank, as_blas(rank), values.right.data(),
                as_blas(K), 1.0f, to, as_blas(K));
  });
}

LowRankValues low_rank_gradients(const LowRankValues& values, std::span<const float> A,
                                 int threads) {
  const auto [N, K, rank] = shape_of(values);
  LowRankValues d = low_rank_start(N, K, rank, 0);
  load_blas();
  in_tiles(N, threads, [&, K = K, rank = rank](int64_t first, int64_t rows) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_blas(rows), as_blas(rank), as_blas(K),
                1.0f, A.data() + first * K, as_blas(K), values.right.data(), as_blas(K), 0.0f,
                d.left.data() + first * rank, as_blas(rank));
    for (int64_t n = first; n < first + rows; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k)
        sum += static_cast<double>(A[static_cast<std::size_t>(n * K + k)]);
      d.rows[static_cast<std::size_t>(n)] = static_cast<float>(sum);
    }
  });
  in_tiles(K, threads, [&, N = N, K = K, rank = rank](int64_t first, int64_t columns) {
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_blas(rank), as_blas(columns),
                as_blas(N), 1.0f, values.left.data(), as_blas(rank), A.data() + first, as_blas(K),
                0.0f, d.right.data() + first, as_blas(K));
    std::vector<double> sums(static_cast<std::size_t>(columns));
    for (int64_t n = 0; n < N; ++n)
      for (int64_t k = 0; k < columns; ++k)
        sums[static_cast<std::size_t>(k)] +=
            static_cast<double>(A[static_cast<std::size_t>(n * K + first + k)]);
    for (int64_t k = 0; k < columns; ++k)
      d.columns[static_cast<std::size_t>(first + k)] =
          static_cast<float>(sums[static_cast<std::size_t>(k)]);
  });
  return d;
}

LowRankDivisor::LowRankDivisor(int64_t N, int64_t K, uint64_t seed)
    : values_(low_rank_start(N, K, low_rank(N, K), seed)), mean_(values_), square_(values_) {
  for (LowRankValues* moments : {&mean_, &square_})
    std::fill(moments->right.begin(), moments->right.end(), 0.0f);
}

void LowRankDivisor::step(std::span<const float> A, const train::AdamStep& step, int threads) {
  const LowRankValues d = low_rank_gradients(values_, A, threads);
  for (const auto part :
       {&LowRankValues::left, &LowRankValues::right, &LowRankValues::rows, &LowRankValues::columns})
    train::adam(step, d.*part, 1.0f, values_.*part, mean_.*part, square_.*part);
}

}  // namespace crumb::quant

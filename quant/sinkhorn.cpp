#include "quant/sinkhorn.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr double kLowestStep = 0.7;
constexpr double kHighestStep = 2.0;
constexpr double kLowestLog = -0.3;
constexpr double kHighestLog = 10.0;
constexpr double kSmallestStd = 1e-3;
constexpr double kLargestStd = 1e3;

// The columns [begin, begin + cols) of w, and its scales' logarithms.
struct Block {
  const float* w = nullptr;
  int64_t N = 0, K = 0, begin = 0, cols = 0;
  std::vector<double> u, v;  // [N], [cols]
};

struct Spread {
  std::vector<double> rows, cols;  // clamped standard deviations of W'
  double imbalance = 1;
};

// Unbiased, like the paper's code; a single value has no spread.
double deviation(double sum, double squares, int64_t n) {
  if (n < 2) return 1;
  const double variance =
      (squares - sum * sum / static_cast<double>(n)) / static_cast<double>(n - 1);
  return std::clamp(std::sqrt(std::max(variance, 0.0)), kSmallestStd, kLargestStd);
}

// Sums of the values of W' and of their squares.
struct Sums {
  double sum = 0, squares = 0;
  void add(double x) {
    sum += x;
    squares += x * x;
  }
};

// The rows [first, last): each is summed from left to right. Rows go side by side, for a sum alone
// waits for every addition.
void sum_rows(const Block& b, const std::vector<double>& divide, int64_t first, int64_t last,
              std::vector<double>* deviations) {
  constexpr int64_t kTogether = 4;
  for (int64_t n = first; n < last; n += kTogether) {
    const int64_t count = std::min(kTogether, last - n);
    std::array<Sums, kTogether> sums;
    std::array<const float*, kTogether> w{};
    std::array<double, kTogether> row{};
    for (int64_t i = 0; i < kTogether; ++i) {  // what is more than there are is computed in vain
      const int64_t at = n + std::min(i, count - 1);
      w[static_cast<std::size_t>(i)] = b.w + at * b.K + b.begin;
      row[static_cast<std::size_t>(i)] = std::exp(-b.u[static_cast<std::size_t>(at)]);
    }
    for (std::size_t k = 0; k < divide.size(); ++k)
      for (std::size_t i = 0; i < sums.size(); ++i)
        sums[i].add(static_cast<double>(w[i][k]) * divide[k] * row[i]);
    for (int64_t i = 0; i < count; ++i)
      (*deviations)[static_cast<std::size_t>(n + i)] = deviation(
          sums[static_cast<std::size_t>(i)].sum, sums[static_cast<std::size_t>(i)].squares, b.cols);
  }
}

// The columns [first, last): each is summed from top to bottom.
void sum_columns(const Block& b, const std::vector<double>& divide, std::size_t first,
                 std::size_t last, std::vector<double>* deviations) {
  std::vector<double> sum(last - first);
  std::vector<double> squares(sum.size());
  for (int64_t n = 0; n < b.N; ++n) {
    const double row = std::exp(-b.u[static_cast<std::size_t>(n)]);
    const float* w = b.w + n * b.K + b.begin + static_cast<int64_t>(first);
    const double* column = divide.data() + first;
    for (std::size_t k = 0; k < sum.size(); ++k) {
      const double x = static_cast<double>(w[k]) * column[k] * row;
      sum[k] += x;
      squares[k] += x * x;
    }
  }
  for (std::size_t k = 0; k < sum.size(); ++k)
    (*deviations)[first + k] = deviation(sum[k], squares[k], b.N);
}

// Every sum has one order, whatever the number of threads.
Spread spread_of(const Block& b, int threads) {
  Spread s;
  s.rows.resize(static_cast<std::size_t>(b.N));
  s.cols.resize(static_cast<std::size_t>(b.cols));
  std::vector<double> divide(s.cols.size());
  for (std::size_t k = 0; k < divide.size(); ++k) divide[k] = std::exp(-b.v[k]);
  const int64_t parts = std::min<int64_t>(threads, b.cols);
  parallel_rows(parts, threads, [&](int64_t begin, int64_t end) {
    sum_rows(b, divide, begin * b.N / parts, end * b.N / parts, &s.rows);
    sum_columns(b, divide, static_cast<std::size_t>(begin * b.cols / parts),
                static_cast<std::size_t>(end * b.cols / parts), &s.cols);
  });
  const auto [low_row, high_row] = std::minmax_element(s.rows.begin(), s.rows.end());
  const auto [low_col, high_col] = std::minmax_element(s.cols.begin(), s.cols.end());
  s.imbalance = std::max(*high_row, *high_col) / std::min(*low_row, *low_col);
  return s;
}

void step(std::span<const double> deviations, double tau, std::vector<double>* logs) {
  for (std::size_t i = 0; i < logs->size(); ++i)
    (*logs)[i] = std::clamp(
        (*logs)[i] + std::log(std::clamp(deviations[i] / tau, kLowestStep, kHighestStep)),
        kLowestLog, kHighestLog);
}

// Leaves the best iterate in u and v.
void normalise(Block* b, int iterations, int threads, double* before, double* after) {
  b->u.assign(static_cast<std::size_t>(b->N), 0);
  b->v.assign(static_cast<std::size_t>(b->cols), 0);
  Spread spread = spread_of(*b, threads);
  const double tau = std::min(*std::min_element(spread.rows.begin(), spread.rows.end()),
                              *std::min_element(spread.cols.begin(), spread.cols.end())) +
                     1e-6;
  *before = *after = spread.imbalance;
  auto best_u = b->u;
  auto best_v = b->v;
  for (int i = 0; i < iterations; ++i) {
    step(spread.cols, tau, &b->v);
    step(spread.rows, tau, &b->u);
    spread = spread_of(*b, threads);
    if (spread.imbalance > *after) break;
    *after = spread.imbalance;
    best_u = b->u;
    best_v = b->v;
  }
  b->u = std::move(best_u);
  b->v = std::move(best_v);
}

}  // namespace

DualScales sinkhorn(std::span<const float> w, int64_t N, int64_t K, const SinkhornOptions& options,
                    int threads) {
  assert(std::ssize(w) == N * K && options.tile >= 0);
  const int64_t width = options.tile == 0 ? K : options.tile;
  const int64_t tiles = (K + width - 1) / width;
  DualScales out;
  out.rows.resize(static_cast<std::size_t>(N * tiles));
  out.columns.resize(static_cast<std::size_t>(K));
  std::vector<double> before(static_cast<std::size_t>(tiles));
  std::vector<double> after(before.size());
  const int inside = tiles == 1 ? resolve_threads(threads) : 1;  // of one tile
  parallel_rows(tiles, threads, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      const auto at = static_cast<std::size_t>(tile);
      Block block = {w.data(), N, K, tile * width, std::min(width, K - tile * width), {}, {}};
      normalise(&block, options.iterations, inside, &before[at], &after[at]);
      for (int64_t n = 0; n < N; ++n)
        out.rows[static_cast<std::size_t>(n * tiles + tile)] =
            static_cast<float>(std::exp(block.u[static_cast<std::size_t>(n)]));
      for (std::size_t k = 0; k < block.v.size(); ++k)
        out.columns[static_cast<std::size_t>(block.begin) + k] =
            static_cast<float>(std::exp(block.v[k]));
    }
  });
  out.imbalance_before = *std::max_element(before.begin(), before.end());
  out.imbalance_after = *std::max_element(after.begin(), after.end());
  return out;
}

std::vector<float> shared_columns(std::span<const std::span<const float>> matrices, int64_t K,
                                  const SinkhornOptions& options, int threads) {
  std::vector<float> stacked;
  for (const auto& matrix : matrices) stacked.insert(stacked.end(), matrix.begin(), matrix.end());
  auto t = sinkhorn(stacked, std::ssize(stacked) / K, K, options, threads).columns;
  auto sorted = t;
  const auto middle = sorted.begin() + std::ssize(sorted) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  for (float& x : t) x /= *middle;
  return t;
}

void divide_columns(std::span<float> w, std::span<const float> t) {
  for (; !w.empty(); w = w.subspan(t.size()))
    for (std::size_t k = 0; k < t.size(); ++k) w[k] /= t[k];
}

void multiply_rows(std::span<float> w, std::span<const float> t, int64_t K) {
  assert(std::ssize(w) == std::ssize(t) * K);
  float* row = w.data();
  for (std::size_t n = 0; n < t.size(); ++n, row += K)
    for (int64_t k = 0; k < K; ++k) row[k] *= t[n];
}

void multiply(std::span<float> gain, std::span<const float> t) {
  assert(gain.size() == t.size());
  for (std::size_t i = 0; i < gain.size(); ++i) gain[i] *= t[i];
}

std::vector<float> share_over_heads(std::span<float> t, int64_t H, int64_t Hk) {
  assert(H % Hk == 0 && std::ssize(t) % H == 0);
  const int64_t Dh = std::ssize(t) / H;
  const int64_t readers = H / Hk;
  std::vector<float> shared(static_cast<std::size_t>(Hk * Dh));
  for (int64_t h = 0; h < Hk; ++h)
    for (int64_t d = 0; d < Dh; ++d) {
      const auto at = [&](int64_t reader) -> float& {
        return t[static_cast<std::size_t>((h * readers + reader) * Dh + d)];
      };
      double sum = 0;
      for (int64_t reader = 0; reader < readers; ++reader)
        sum += std::log(static_cast<double>(at(reader)));
      const auto mean = static_cast<float>(std::exp(sum / static_cast<double>(readers)));
      for (int64_t reader = 0; reader < readers; ++reader) at(reader) = mean;
      shared[static_cast<std::size_t>(h * Dh + d)] = mean;
    }
  return shared;
}

}  // namespace crumb::quant

#include "quant/quip.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>

#include "quant/ldlq.h"
#include "quant/linalg.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr double kLevelsSpan = 2.4;       // of rms(W), to both sides
constexpr double kRegularisation = 0.01;  // of the mean diagonal of H
constexpr double kSmallest = 1e-8;        // diagonals, H's divided by its largest value

double uniform(std::mt19937_64& bits) {  // (0, 1]
  return (static_cast<double>(bits() >> 11) + 1) * 0x1p-53;
}

double normal(std::mt19937_64& bits) {
  const double radius = std::sqrt(-2 * std::log(uniform(bits)));
  return radius * std::cos(2 * std::numbers::pi * uniform(bits));
}

// Rows of Gaussians made orthonormal one after the other; twice, so that nothing of the earlier
// rows is left in fp64.
std::vector<double> random_orthogonal(int64_t n, std::mt19937_64& bits) {
  std::vector<double> rows(static_cast<std::size_t>(n * n));
  for (double& x : rows) x = normal(bits);
  for (int64_t i = 0; i < n; ++i) {
    double* row = rows.data() + i * n;
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t j = 0; j < i; ++j) {
        const double* other = rows.data() + j * n;
        const double part = std::inner_product(row, row + n, other, 0.0);
        for (int64_t k = 0; k < n; ++k) row[k] -= part * other[k];
      }
    const double norm = std::sqrt(std::inner_product(row, row + n, row, 0.0));
    for (int64_t k = 0; k < n; ++k) row[k] /= norm;
  }
  return rows;
}

std::vector<int32_t> random_permutation(int64_t n, std::mt19937_64& bits) {
  std::vector<int32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[bits() % i]);
  return order;
}

// y = A x over the first index of x [p, q], or A^T x; then the same over the second with B.
void multiply_first(const std::vector<double>& A, bool transposed, int64_t p, int64_t q,
                    std::span<const double> x, std::span<double> y) {
  std::fill(y.begin(), y.end(), 0.0);
  for (int64_t i = 0; i < p; ++i)
    for (int64_t j = 0; j < p; ++j) {
      const double a = A[static_cast<std::size_t>(transposed ? j * p + i : i * p + j)];
      for (int64_t k = 0; k < q; ++k)
        y[static_cast<std::size_t>(i * q + k)] += a * x[static_cast<std::size_t>(j * q + k)];
    }
}

void multiply_second(const std::vector<double>& B, bool transposed, int64_t p, int64_t q,
                     std::span<const double> x, std::span<double> y) {
  for (int64_t i = 0; i < p; ++i)
    for (int64_t j = 0; j < q; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < q; ++k)
        sum += B[static_cast<std::size_t>(transposed ? k * q + j : j * q + k)] *
               x[static_cast<std::size_t>(i * q + k)];
      y[static_cast<std::size_t>(i * q + j)] = sum;
    }
}

// Every row of M [rows, n] by V or V^T.
void apply_to_rows(const Kronecker& v, bool transposed, std::span<double> M, int threads) {
  const int64_t n = v.n();
  parallel_rows(std::ssize(M) / n, threads, [&](int64_t begin, int64_t end) {
    std::vector<double> scratch(static_cast<std::size_t>(n));
    for (int64_t i = begin; i < end; ++i)
      apply(v, transposed, M.subspan(static_cast<std::size_t>(i * n), static_cast<std::size_t>(n)),
            scratch);
  });
}

std::vector<double> transpose(std::span<const double> M, int64_t rows, int64_t cols) {
  std::vector<double> out(M.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j)
      out[static_cast<std::size_t>(j * rows + i)] = M[static_cast<std::size_t>(i * cols + j)];
  return out;
}

// W [N, K] -> U W V^T, or U^T W V.
void apply_both_sides(const Kronecker& u, const Kronecker& v, bool inverse, std::vector<double>* W,
                      int threads) {
  apply_to_rows(v, inverse, *W, threads);
  *W = transpose(*W, u.n(), v.n());
  apply_to_rows(u, inverse, *W, threads);
  *W = transpose(*W, v.n(), u.n());
}

std::vector<double> rescale(std::span<const double> W, std::span<const double> H, int64_t K) {
  const auto columns = static_cast<std::size_t>(K);
  double largest = 0;
  for (const double x : H) largest = std::max(largest, std::abs(x));
  std::vector<double> w2(columns);
  for (std::size_t i = 0; i < W.size(); ++i) w2[i % columns] += W[i] * W[i];
  std::vector<double> d(columns, 1.0);
  if (largest > 0)
    for (std::size_t k = 0; k < columns; ++k)
      d[k] = std::pow(
          std::max(H[k * columns + k] / largest, kSmallest) / std::max(w2[k], kSmallest), 0.25);
  return d;
}

void regularise(int64_t K, std::vector<double>* H) {
  double trace = 0;
  for (int64_t k = 0; k < K; ++k) trace += (*H)[static_cast<std::size_t>(k * K + k)];
  const double factor = static_cast<double>(K) / (trace + kSmallest);
  for (double& x : *H) x *= factor;
  for (int64_t k = 0; k < K; ++k) (*H)[static_cast<std::size_t>(k * K + k)] += kRegularisation;
}

double rms(std::span<const double> x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0) /
                   static_cast<double>(x.size()));
}

}  // namespace

Kronecker random_kronecker(int64_t n, uint64_t seed) {
  assert(n >= 1);
  Kronecker v;
  int64_t rest = n;
  bool first = true;
  for (int64_t prime = 2; rest > 1; ++prime) {
    if (prime * prime > rest) prime = rest;
    for (; rest % prime == 0; rest /= prime, first = !first) (first ? v.p : v.q) *= prime;
  }
  std::mt19937_64 bits(seed);
  v.A = random_orthogonal(v.p, bits);
  v.B = random_orthogonal(v.q, bits);
  v.in = random_permutation(n, bits);
  v.out = random_permutation(n, bits);
  return v;
}

void apply(const Kronecker& v, bool transposed, std::span<double> x, std::span<double> scratch) {
  assert(std::ssize(x) == v.n() && scratch.size() == x.size());
  const auto& gather = transposed ? v.out : v.in;
  const auto& scatter = transposed ? v.in : v.out;
  // x'_i = x[gather_i]; the last step is y[i] = x''[scatter_i] for V, its inverse for V^T.
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (transposed)
      scratch[static_cast<std::size_t>(gather[i])] = x[i];
    else
      scratch[i] = x[static_cast<std::size_t>(gather[i])];
  }
  multiply_first(v.A, transposed, v.p, v.q, scratch, x);
  multiply_second(v.B, transposed, v.p, v.q, x, scratch);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (transposed)
      x[static_cast<std::size_t>(scatter[i])] = scratch[i];
    else
      x[i] = scratch[static_cast<std::size_t>(scatter[i])];
  }
}

QuipResult quip(std::span<const float> w, int64_t N, int64_t K, std::span<const double> H,
                const QuipOptions& options, const std::string& name, int threads) {
  assert(std::ssize(w) == N * K && std::ssize(H) == K * K);
  const auto columns = static_cast<std::size_t>(K);
  std::vector<double> W(w.begin(), w.end());
  std::vector<double> second(H.begin(), H.end());
  const auto d = options.rescale ? rescale(W, second, K) : std::vector<double>(columns, 1.0);
  for (std::size_t i = 0; i < W.size(); ++i) W[i] *= d[i % columns];
  for (std::size_t i = 0; i < second.size(); ++i) second[i] /= d[i / columns] * d[i % columns];
  regularise(K, &second);

  const Kronecker u = random_kronecker(N, options.seed);
  const Kronecker v = random_kronecker(K, options.seed + 1);
  apply_both_sides(u, v, false, &W, threads);
  apply_to_rows(v, false, second, threads);  // H V^T, then V (H V^T): H is symmetric
  second = transpose(second, K, K);
  apply_to_rows(v, false, second, threads);

  // Divided by its rms, so that the one scale is the same number for every matrix.
  const double size = std::max(rms(W), 1e-300);
  std::vector<float> unit(W.size());
  for (std::size_t i = 0; i < W.size(); ++i) unit[i] = static_cast<float>(W[i] / size);
  Rounded levels = make_rounded(N, K, options.bits, 0, kernels::Grid::kSeq);
  const float step = nearest_scale(2 * kLevelsSpan / ((1 << options.bits) - 1));
  for (int64_t n = 0; n < N; ++n)
    set_fit(&levels, n, 0, {step, kernels::grid_zero2(kernels::Grid::kSeq, options.bits)});
  const Factor factored = factor(second, K, ColumnOrder::kActOrder, name, threads);
  const auto rounded =
      dequantize(ldlq_on(unit, factored, std::move(levels), options.greedy_passes, threads));

  for (std::size_t i = 0; i < W.size(); ++i) W[i] = static_cast<double>(rounded[i]) * size;
  apply_both_sides(u, v, true, &W, threads);
  QuipResult result;
  result.w.resize(W.size());
  for (std::size_t i = 0; i < W.size(); ++i)
    result.w[i] = static_cast<float>(W[i] / d[i % columns]);
  result.damping = factored.damping;
  const auto weights = static_cast<double>(N * K);
  result.bpw =
      options.bits + ((options.rescale ? 16.0 * static_cast<double>(K) : 0.0) + 16) / weights;
  return result;
}

}  // namespace crumb::quant

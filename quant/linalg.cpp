#include "quant/linalg.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "models/errors.h"
#include "quant/blas.h"
#include "quant/parallel.h"

namespace crumb::quant {
namespace {

constexpr int64_t kTile = 128;        // columns of a Cholesky panel, rows of a piece of work
constexpr int64_t kLossRows = 64;     // rows of W worked on at once by row_losses
constexpr double kPivotPart = 1e-10;  // of the mean diagonal: below it H is singular to rounding

blasint as_blas(int64_t n) { return static_cast<blasint>(n); }

// A [n, n] at distance ld, last column first: a_jj -> r_jj, column above it, then the rest.
bool small_cholesky(double* A, int64_t n, int64_t ld, double smallest) {
  for (int64_t j = n - 1; j >= 0; --j) {
    const double pivot = A[j * ld + j];
    if (!(pivot >= smallest)) return false;  // also NaN
    const double root = std::sqrt(pivot);
    A[j * ld + j] = root;
    for (int64_t i = 0; i < j; ++i) A[i * ld + j] /= root;
    for (int64_t i = 0; i < j; ++i)
      for (int64_t k = i; k < j; ++k) A[i * ld + k] -= A[i * ld + j] * A[k * ld + j];
  }
  return true;
}

// The tiles of a triangle have unequal work: taken from both ends in turn, every contiguous part of
// the list has about the same.
int64_t from_both_ends(int64_t index, int64_t count) {
  return index % 2 == 0 ? index / 2 : count - 1 - index / 2;
}

double mean_diagonal(std::span<const double> H, int64_t K, const std::string& name, int64_t* dead) {
  double sum = 0;
  *dead = 0;
  for (int64_t k = 0; k < K; ++k) {
    const double value = H[static_cast<std::size_t>(k * K + k)];
    if (!(value >= 0) || !std::isfinite(value))
      throw Error(ExitCode::kNumeric,
                  "second moment is not one (" + name + " column " + std::to_string(k) +
                      ": expected a finite E[x^2] >= 0, found " + std::to_string(value) + ")",
                  "the calibration run met values that are not finite");
    sum += value;
    *dead += value == 0 ? 1 : 0;
  }
  return *dead == K ? 1.0 : sum / static_cast<double>(K - *dead);
}

std::vector<int32_t> column_order(std::span<const double> H, int64_t K, ColumnOrder order) {
  std::vector<int32_t> columns(static_cast<std::size_t>(K));
  std::iota(columns.begin(), columns.end(), 0);
  if (order == ColumnOrder::kDescending) std::reverse(columns.begin(), columns.end());
  if (order == ColumnOrder::kActOrder)
    std::stable_sort(columns.begin(), columns.end(), [&](int32_t a, int32_t b) {
      return H[static_cast<std::size_t>(a * K + a)] > H[static_cast<std::size_t>(b * K + b)];
    });
  return columns;
}

// H in the order of rounding; dead columns replaced. Without damping.
void gather(std::span<const double> H, double mean, Factor* factor) {
  const int64_t K = factor->K;
  factor->H.resize(static_cast<std::size_t>(K * K));
  for (int64_t i = 0; i < K; ++i) {
    const int64_t from = factor->order[static_cast<std::size_t>(i)];
    const bool dead = H[static_cast<std::size_t>(from * K + from)] == 0;
    double* row = factor->H.data() + i * K;
    for (int64_t j = 0; j < K; ++j) {
      const int64_t column = factor->order[static_cast<std::size_t>(j)];
      const bool both = !dead && H[static_cast<std::size_t>(column * K + column)] != 0;
      row[j] = both ? H[static_cast<std::size_t>(from * K + column)] : 0.0;
    }
    if (dead) row[i] = mean;
  }
}

// R with H = R R^T in M -> M unit upper and D.
void split_diagonal(Factor* factor) {
  const int64_t K = factor->K;
  factor->D.resize(static_cast<std::size_t>(K));
  std::vector<double> inverse(static_cast<std::size_t>(K));
  for (int64_t j = 0; j < K; ++j) {
    const double root = factor->M[static_cast<std::size_t>(j * K + j)];
    factor->D[static_cast<std::size_t>(j)] = root * root;
    inverse[static_cast<std::size_t>(j)] = 1 / root;
  }
  for (int64_t i = 0; i < K; ++i) {
    double* row = factor->M.data() + i * K;
    for (int64_t j = i + 1; j < K; ++j) row[j] *= inverse[static_cast<std::size_t>(j)];
    row[i] = 1;
  }
}

}  // namespace

void use_one_blas_thread() { load_blas(); }

void gemm(const GemmShape& shape, double alpha, const double* A, int64_t lda, const double* B,
          int64_t ldb, double beta, double* C, int64_t ldc) {
  cblas_dgemm(CblasRowMajor, shape.transpose_a ? CblasTrans : CblasNoTrans, CblasNoTrans,
              as_blas(shape.m), as_blas(shape.n), as_blas(shape.k), alpha, A, as_blas(lda), B,
              as_blas(ldb), beta, C, as_blas(ldc));
}

bool upper_cholesky(std::span<double> A, int64_t K, double smallest, int threads) {
  assert(std::ssize(A) == K * K);
  use_one_blas_thread();
  const int64_t tiles = (K + kTile - 1) / kTile;
  for (int64_t b = tiles - 1; b >= 0; --b) {
    const int64_t begin = b * kTile;
    const int64_t size = std::min(kTile, K - begin);
    double* corner = A.data() + begin * K + begin;
    if (!small_cholesky(corner, size, K, smallest)) return false;
    // R_ab = A_ab R_bb^-T for the tiles above, then A_ac -= R_ab R_cb^T for a <= c < b.
    parallel_rows(b, threads, [&](int64_t first, int64_t last) {
      for (int64_t a = first; a < last; ++a)
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, as_blas(kTile),
                    as_blas(size), 1.0, corner, as_blas(K), A.data() + a * kTile * K + begin,
                    as_blas(K));
    });
    parallel_rows(b, threads, [&](int64_t first, int64_t last) {
      for (int64_t index = first; index < last; ++index) {
        const int64_t top = from_both_ends(index, b) * kTile;
        const double* panel = A.data() + top * K + begin;
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_blas(kTile), as_blas(begin - top),
                    as_blas(size), -1.0, panel, as_blas(K), panel, as_blas(K), 1.0,
                    A.data() + top * K + top, as_blas(K));
      }
    });
  }
  for (int64_t i = 1; i < K; ++i) std::fill_n(A.data() + i * K, i, 0.0);
  return true;
}

void solve_right(std::span<const double> R, int64_t K, std::span<double> B, int64_t rows) {
  assert(std::ssize(R) == K * K && std::ssize(B) == rows * K);
  for (const CBLAS_TRANSPOSE op : {CblasTrans, CblasNoTrans})  // B R^-T R^-1
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasUpper, op, CblasNonUnit, as_blas(rows), as_blas(K),
                1.0, R.data(), as_blas(K), B.data(), as_blas(K));
}

Factor factor(std::span<const double> H, int64_t K, ColumnOrder order, const std::string& name,
              int threads, double least_damping) {
  assert(std::ssize(H) == K * K);
  Factor out;
  out.K = K;
  const double mean = mean_diagonal(H, K, name, &out.dead);
  out.order = column_order(H, K, order);
  out.diagonal.resize(static_cast<std::size_t>(K));
  for (int64_t k = 0; k < K; ++k)
    out.diagonal[static_cast<std::size_t>(k)] =
        static_cast<float>(H[static_cast<std::size_t>(k * K + k)]);
  gather(H, mean, &out);
  for (const double rung : kDampingLadder) {
    if (rung < least_damping) continue;
    for (int64_t k = 0; k < K; ++k)
      out.H[static_cast<std::size_t>(k * K + k)] += (rung - out.damping) * mean;
    out.damping = rung;
    out.M = out.H;
    if (!upper_cholesky(out.M, K, kPivotPart * mean, threads)) continue;
    split_diagonal(&out);
    return out;
  }
  throw Error(ExitCode::kNumeric,
              "second moment is not positive (" + name +
                  ": expected positive pivots at damping <= 1" + ", found none)",
              "the calibration run met values that are not finite, or H is not symmetric");
}

std::vector<double> row_losses(std::span<const float> w, std::span<const float> rounded, int64_t N,
                               std::span<const double> H, int64_t K, int threads) {
  assert(std::ssize(w) == N * K && w.size() == rounded.size() && std::ssize(H) == K * K);
  use_one_blas_thread();
  std::vector<double> losses(static_cast<std::size_t>(N));
  const int64_t tiles = (N + kLossRows - 1) / kLossRows;
  parallel_rows(tiles, threads, [&](int64_t first, int64_t last) {
    std::vector<double> E(static_cast<std::size_t>(kLossRows * K));
    std::vector<double> EH(E.size());
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t begin = tile * kLossRows;
      const int64_t rows = std::min(kLossRows, N - begin);
      const auto from = static_cast<std::size_t>(begin * K);
      for (std::size_t i = 0; i < static_cast<std::size_t>(rows * K); ++i)
        E[i] = static_cast<double>(w[from + i]) - static_cast<double>(rounded[from + i]);
      gemm({rows, K, K}, 1.0, E.data(), K, H.data(), K, 0.0, EH.data(), K);
      for (int64_t n = 0; n < rows; ++n)
        losses[static_cast<std::size_t>(begin + n)] =
            std::inner_product(E.data() + n * K, E.data() + (n + 1) * K, EH.data() + n * K, 0.0);
    }
  });
  return losses;
}

double proxy_loss(std::span<const float> w, std::span<const float> rounded, int64_t N,
                  std::span<const double> H, int64_t K, int threads) {
  const auto losses = row_losses(w, rounded, N, H, K, threads);
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace crumb::quant

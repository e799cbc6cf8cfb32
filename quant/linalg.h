// The dense algebra of the rounding methods, in fp64 over OpenBLAS's gemm and trsm.
//
// A second moment H = E[x x^T] [K, K] is factored as H = M D M^T with M unit upper triangular, the
// order in which columns are rounded first to last (LDLQ, arXiv:2307.13304, with columns reversed).
// For errors E = W - W' this gives
//   tr(E H E^T) = sum_j D_j |t_j - w'_j|^2,   t_j = w_j + sum_{i<j} (w_i - w'_i) M_ij,
// so rounding t_j instead of w_j compensates all that has been lost before column j. It is the
// update of GPTQ (arXiv:2210.17323): its upper factor U of H^-1 = U^T U is (M sqrt(D))^-1, so
// U_jj = 1 / sqrt(D_j); no inverse is needed.
//
// Work is cut into tiles of fixed size before it is divided over threads and OpenBLAS itself runs
// on one thread, so results do not depend on the number of threads.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace crumb::quant {

// H in the order of rounding, damped, and its factors. K x K matrices are row-major.
struct Factor {
  int64_t K = 0;
  std::vector<int32_t> order;   // [K] rounding position -> column of the matrix
  std::vector<double> H;        // [K, K] damped, in rounding order; symmetric
  std::vector<double> M;        // [K, K] unit upper; zeros below the diagonal
  std::vector<double> D;        // [K] > 0
  std::vector<float> diagonal;  // [K] of the given H, in the matrix's order: weights of its columns
  double damping = 0;           // the rung that was added, as a part of the mean of the diagonal
  int64_t dead = 0;             // columns with H_kk = 0: their input is never anything but 0
};

// kAscending is the order of columns, kActOrder by falling H_kk (ties by column), kDescending last
// to first (QuIP).
enum class ColumnOrder : uint8_t { kAscending, kActOrder, kDescending };

inline constexpr double kDampingLadder[] = {0.01, 0.03, 0.1, 1.0};

// Factors H + damping * mean(diag H) * I, with the first rung of kDampingLadder, not below
// `least_damping`, at which every pivot is positive and at least 1e-10 of the mean diagonal. Dead
// columns are taken out: they get the mean diagonal and touch no other column (the mean is over the
// others). Throws Error(kNumeric) naming `name` if H holds a value that is not finite or a negative
// diagonal, or if no rung is enough. threads 0: all of the machine.
Factor factor(std::span<const double> H, int64_t K, ColumnOrder order, const std::string& name,
              int threads = 0, double least_damping = kDampingLadder[0]);

// In place: symmetric positive definite A [K, K] (upper triangle read) -> upper R with A = R R^T,
// zeros below the diagonal. False if a pivot falls below `smallest`; A is then spoilt.
bool upper_cholesky(std::span<double> A, int64_t K, double smallest, int threads = 0);

// B [rows, K] <- B A^-1 for the upper R [K, K] of A = R R^T. Single-threaded.
void solve_right(std::span<const double> R, int64_t K, std::span<double> B, int64_t rows);

// OpenBLAS splits sums differently for different numbers of threads, so it gets one: called by
// every function that uses it, before it starts threads. The only state of the process touched
// here.
void use_one_blas_thread();

// C [m, n] = alpha * op(A) B + beta * C, row-major, op(A) [m, k]; ld* are the rows' distances.
// Single-threaded.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false;
};
void gemm(const GemmShape& shape, double alpha, const double* A, int64_t lda, const double* B,
          int64_t ldb, double beta, double* C, int64_t ldc);

// tr(E H E^T) of E = W - W' (both [N, K]), the mean squared output error of y = W x times N.
double proxy_loss(std::span<const float> w, std::span<const float> rounded, int64_t N,
                  std::span<const double> H, int64_t K, int threads = 0);
// [N]: the same for every row.
std::vector<double> row_losses(std::span<const float> w, std::span<const float> rounded, int64_t N,
                               std::span<const double> H, int64_t K, int threads = 0);

}  // namespace crumb::quant

// SINQ (arXiv:2509.22944): Sinkhorn-normalised dual scales, W [N, K] ~ diag(s) Q diag(t), no data.
//
// The spreads of all rows and columns are brought together by alternately dividing by their
// standard deviations: tau = the least of them + 1e-6; with W' = W / (exp(u) exp(v)), 16 times
//   v_k += log clamp(std(W'_:k) / tau, .7, 2),  u_n += log clamp(std(W'_n:) / tau, .7, 2),
// both clipped to [-.3, 10]. Deviations (unbiased) are clamped to [1e-3, 1e3]. Kept is the iterate
// with the least imbalance (largest over smallest std); the search ends when it first rises.
//
// Only t matters to what follows: rows are scaled anyhow by the grid fitted to W / t, and scaling a
// whole group changes no code of kAbsMax. The runtime multiplies its input by t, or t is folded
// into what makes the input.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace crumb::quant {

struct SinkhornOptions {
  int iterations = 16;
  // The loop runs on W[:, tile] alone for every `tile` columns, with row scales of its own, as the
  // paper's code does; 0 takes all columns at once: one row scale and one column scale.
  int64_t tile = 64;
};

struct DualScales {
  std::vector<float> rows;      // [N, tiles] > 0
  std::vector<float> columns;   // [K] > 0: t
  double imbalance_before = 0;  // largest of the tiles
  double imbalance_after = 0;   // <= before
};

// w [N, K] row-major, finite. Deterministic; independent of the number of threads.
DualScales sinkhorn(std::span<const float> w, int64_t N, int64_t K, const SinkhornOptions& options,
                    int threads = 0);

// One t for matrices that share their input (q, k, v; gate, up): of all rows stacked. Divided by
// its median, as it goes into a norm's gain or the rows of the matrix before.
std::vector<float> shared_columns(std::span<const std::span<const float>> matrices, int64_t K,
                                  const SinkhornOptions& options, int threads = 0);

// w[n, k] /= t[k]: the matrix that is fed t * x.
void divide_columns(std::span<float> w, std::span<const float> t);
// w[n, k] *= t[n]: folding t into the matrix that makes x (up before down, v before o); K columns.
void multiply_rows(std::span<float> w, std::span<const float> t, int64_t K);
// gain[k] *= t[k]: folding t into the norm that makes x.
void multiply(std::span<float> gain, std::span<const float> t);

// t [H * Dh] of o's input -> [Hk * Dh] for the rows of v, and t made equal (geometric mean) over
// the H / Hk query heads that read one head of v: only then is folding exact. H is a multiple of
// Hk.
std::vector<float> share_over_heads(std::span<float> t, int64_t H, int64_t Hk);

}  // namespace crumb::quant

// QuIP as published (arXiv:2307.13304, and the authors' code with --incoh_processing and ldlqRG),
// as the control of the Hadamard form that the runtime computes:
//   rescale      d_k = (H_kk / (W^T W)_kk)^(1/4), W <- W diag(d), H <- diag(1/d) H diag(1/d)
//   regularise   H <- H K / tr(H) + 0.01 I
//   incoherence  W <- U W V^T, H <- V H V^T; U and V are Kronecker products of two random
//   orthogonal
//                matrices between two random permutations
//   grid         one scale for the matrix: 2^b levels evenly over +-2.4 rms(W)
//   rounding     LDLQ by falling H_kk, then greedy passes; W' <- U^T W' V diag(1/d)
// Deviations: the scale is in binary16; the greedy passes clamp every code as they go, where the
// code clamps at the end of a pass (ours cannot raise the loss, theirs can); damping beyond .01 is
// added if the factor needs it.
//
// The engine does not multiply by Kronecker products, so the result is float weights in the
// matrix's own space: for evaluation only.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace crumb::quant {

// V = P_out (A kron B) P_in of order n = p q.
struct Kronecker {
  int64_t p = 1, q = 1;
  std::vector<double> A, B;      // [p, p], [q, q] orthogonal
  std::vector<int32_t> in, out;  // [n] permutations
  int64_t n() const { return p * q; }
};
// Haar-distributed A and B, drawn by the seed. p and q are the products of every other prime factor
// of n, so they are as near to sqrt(n) as the published code's.
Kronecker random_kronecker(int64_t n, uint64_t seed);
// x [n] -> V x, or V^T x. scratch [n].
void apply(const Kronecker& v, bool transposed, std::span<double> x, std::span<double> scratch);

struct QuipOptions {
  int bits = 2;
  bool rescale = true;
  int greedy_passes = 10;
  uint64_t seed = 1;
};
struct QuipResult {
  std::vector<float> w;  // [N, K]
  double damping = 0;    // the factor's rung
  double bpw = 0;        // codes, d as binary16, one scale; U and V come from the seed
};
// w [N, K] finite, H [K, K] as quant/linalg.h's factor(), whose errors it throws. Deterministic;
// independent of the number of threads.
QuipResult quip(std::span<const float> w, int64_t N, int64_t K, std::span<const double> H,
                const QuipOptions& options, const std::string& name, int threads = 0);

}  // namespace crumb::quant

// Forward and backward pairs of a Llama-type model's operations, float32, row-major, on the
// caller's memory and the caller's thread.
//
// A backward function takes what its forward function read (and the results it names), the gradient
// dY = dL/dY of the result, and ADDS dL/dX to every gradient span; an empty span is skipped. The
// result of every function depends on its arguments only, bit for bit on one machine, provided that
// OpenBLAS runs on one thread: call single_threaded_blas() before.
#pragma once
#include <cstdint>
#include <span>

namespace crumb::quant::train {

// OpenBLAS's threads are a setting of the process; whoever parallelises over windows or tiles calls
// this.
void single_threaded_blas();

// y_t = x_t * r_t * gain, r_t = 1 / sqrt(sum(x_t^2) / D + eps). x, y [T, D], gain [D]; sums in
// double. Backward, g = dy * gain:  dx = r g - x r^3 sum(g x) / D,  dgain = sum_t dy x r.
void rmsnorm(std::span<const float> x, std::span<const float> gain, float eps, std::span<float> y);
void rmsnorm_backward(std::span<const float> x, std::span<const float> gain, float eps,
                      std::span<const float> dy, std::span<float> dx, std::span<float> dgain);

// x_i <- exp(x_i - shift), within 2e-7 of the value; 0 below -87. Written so that compilers make
// vectors of it.
void exp_shifted(std::span<float> x, float shift);

// y = x w^T + bias. x [T, K], w [N, K], bias [N] or empty, y [T, N].
// Backward: dx = dy w, dw = dy^T x, dbias = sum_t dy.
void linear(std::span<const float> x, std::span<const float> w, std::span<const float> bias,
            int64_t K, std::span<float> y);
struct LinearGradients {
  std::span<float> dx, dw, dbias;  // [T, K], [N, K], [N]
};
void linear_backward(std::span<const float> x, std::span<const float> w, int64_t K,
                     std::span<const float> dy, const LinearGradients& gradients);

// In place: pair (2i, 2i+1) of every head of row t turns by angle(t, i), the checkpoint's order
// (docs/decisions/0005). x [S, heads * Dh]; cos, sin [S, Dh / 2]. The backward is the inverse
// rotation of the gradient, in place too (it replaces, it does not add).
void rope(std::span<float> x, int64_t head_dim, std::span<const float> cos,
          std::span<const float> sin);
void rope_backward(std::span<float> dx, int64_t head_dim, std::span<const float> cos,
                   std::span<const float> sin);

// y = gate * sigmoid(gate) * up, any shape; the engine's own function. Backward, s = sigmoid(gate):
//   dup = dy gate s,  dgate = dy up s (1 + gate (1 - s)).
void silu_mul(std::span<const float> gate, std::span<const float> up, std::span<float> y);
void silu_mul_backward(std::span<const float> gate, std::span<const float> up,
                       std::span<const float> dy, std::span<float> dgate, std::span<float> dup);

}  // namespace crumb::quant::train

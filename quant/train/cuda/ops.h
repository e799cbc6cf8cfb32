// The operations of quant/train/{ops,attention,loss,fake_quant,adam}.h on the GPU. All pointers are
// device memory, all matrices row-major; arithmetic in float, values that feed a matrix product in
// bf16, the residual stream and its gradient in float. Every sum has an order that depends on
// shapes only, so a step gives the same bits every time it is run on one kind of card.
#pragma once
#include <cuda_fp16.h>

#include <cstdint>

#include "quant/train/cuda/device.h"
#include "quant/train/input_quant.h"
#include "quant/train/loss.h"
#include "quant/train/noise.h"

namespace crumb::quant::train::cuda {

// Widths (D) are multiples of 64 up to this.
inline constexpr int64_t kMaxNormWidth = 2048;

// x [T, D] = table[ids], as float.
void embed(const int32_t* ids, const bf16* table, int64_t T, int64_t D, float* x, cudaStream_t s);

// The gradient of embed(): table row ids[i] += the sum of dx [T, D] over positions[starts[i]],
// .. positions[starts[i + 1] - 1], those where that id stands, for each of `count` different ids.
void embed_backward(const int32_t* ids, const int32_t* starts, const int32_t* positions,
                    int64_t count, const float* dx, int64_t D, float* dtable, cudaStream_t s);

// y = x * inverse_rms(x) * gain, [T, D].
void rmsnorm(const float* x, const float* gain, float eps, int64_t T, int64_t D, bf16* y,
             cudaStream_t s);
// residual_gradient += dL/dx, and its rounding to bf16 in `rounded` (may be null). dgain [D] is
// written. `partial` [kNormBlocks, D].
inline constexpr int64_t kNormBlocks = 264;
void rmsnorm_backward(const float* x, const float* gain, float eps, const bf16* dy, int64_t T,
                      int64_t D, float* residual_gradient, bf16* rounded, float* dgain,
                      float* partial, cudaStream_t s);
void round_to_bf16(const float* x, int64_t n, bf16* y, cudaStream_t s);

// y [T, N] += bias [N]. Backward: dbias = the sums of dy's columns, written. N is even; `partial`
// [kNormBlocks, N].
void add_bias(const float* bias, int64_t T, int64_t N, bf16* y, cudaStream_t s);
void bias_backward(const bf16* dy, int64_t T, int64_t N, float* dbias, float* partial,
                   cudaStream_t s);

// y += x, [n].
void add(const float* x, int64_t n, float* y, cudaStream_t s);

// RoPE of interleaved pairs, in place, on the first `heads` heads, `head` values wide, of rows of
// `width` values. Row t stands at position t % S; cos, sin [S, head / 2].
void rope(bf16* x, int64_t T, int64_t S, int64_t width, int64_t heads, int64_t head,
          const float* cos, const float* sin, cudaStream_t s);

// gate and up are the halves of rows [2 F]. y [T, F]; backward writes d_gate_up [T, 2 F].
void silu_mul(const bf16* gate_up, int64_t T, int64_t F, bf16* y, cudaStream_t s);
void silu_mul_backward(const bf16* gate_up, const bf16* dy, int64_t T, int64_t F, bf16* d_gate_up,
                       cudaStream_t s);

// Causal attention of B windows of S tokens (a multiple of 64), heads of width 64 or 128. qkv [B *
// S, (H + 2 Hk) * width] after RoPE; o [B * S, H * width]; lse [B, H, S] of scores / sqrt(width).
struct AttentionSize {
  int64_t B = 0, S = 0, heads = 0, kv_heads = 0, width = 64;
};
void attention(const AttentionSize& size, const bf16* qkv, bf16* o, float* lse, cudaStream_t s);
// d_qkv is written, with RoPE's backward already applied. `dots` [B, H, S] is overwritten.
void attention_backward(const AttentionSize& size, const bf16* qkv, const bf16* o, const bf16* d_o,
                        const float* lse, const float* cos, const float* sin, float* dots,
                        bf16* d_qkv, cudaStream_t s);

// One matrix [N, K] on a grid with one scale a row, or a group of columns of a row; rotated by
// signs [K] and Hadamard blocks of 64 unless signs is null. log_scale [N, groups].
struct GridSpec {
  int bits = 2;
  float zero = 1.5f;               // w = scale (code - zero)
  float log_factor = 0.0f;         // scale = stored form of exp(log_scale + log_factor)
  int64_t group = 0;               // 32, 64 or 128 columns; 0: the row
  const uint8_t* zeros = nullptr;  // [N, groups] instead of `zero`: the asym grid
};
// w [N, K] = the fake-quantized master in plain space; codes (may be null) [N, K].
void fake_quantize(const float* master, const float* log_scale, const GridSpec& grid,
                   const float* signs, int64_t N, int64_t K, bf16* w, uint8_t* codes,
                   cudaStream_t s);
// In place: dL/dw in plain space -> dL/dmaster. d_log_scale [N, groups] is written.
void fake_quantize_backward(const float* master, const float* log_scale, const GridSpec& grid,
                            const float* signs, int64_t N, int64_t K, float* gradient,
                            float* d_log_scale, cudaStream_t s);
// quant/train/noise.h for one matrix of the same kind.
struct NoiseSpec {
  NoiseSteps steps;
  bool lsq = false;
  uint64_t seed = 0, first = 0;
};
// w [N, K] = the noisy master in plain space.
void noisy_weights(const float* master, const float* log_scale, const NoiseSpec& noise,
                   const float* signs, int64_t N, int64_t K, bf16* w, cudaStream_t s);
// In place like fake_quantize_backward(). d_bits [N]: each row's sum of G e, to be
// multiplied by steps.d_bits.
void noisy_weights_backward(const float* master, const float* log_scale, const NoiseSpec& noise,
                            const float* signs, int64_t N, int64_t K, float* gradient,
                            float* d_log_scale, float* d_bits, cudaStream_t s);
// quant/train/input_quant.h: y [n] of x [n], rounded to bf16.
void quantize_input(const InputQuant& quant, const bf16* x, int64_t n, bf16* y, cudaStream_t s);
// In place dL/dy -> dL/dx; adds dL/da to `d_log_alpha`. `partial` [kSumBlocks].
void quantize_input_backward(const InputQuant& quant, const bf16* x, int64_t n, bf16* d,
                             double* partial, double* d_log_alpha, cudaStream_t s);
// changed[0] += how many codes of a and b differ.
void count_changes(const uint8_t* a, const uint8_t* b, int64_t n, unsigned long long* changed,
                   cudaStream_t s);

// Losses between rows of logits (quant/train/loss.h): what each token contributes, and
// d_student = weight * dLoss/dstudent (may be null). labels (may be null, but for cross
// entropy): a label < 0 leaves the token out. `loss` gets weight * loss. Also KL(teacher ||
// student) and whether the largest logits agree.
void distill_loss(const LossOptions& options, const float* teacher, const float* student,
                  const int32_t* labels, float weight, int64_t T, int64_t V, float* loss, float* kl,
                  float* agree, bf16* d_student, cudaStream_t s);

// result[0] = sum of x, in double, in a fixed order. `partial` [kSumBlocks].
inline constexpr int64_t kSumBlocks = 528;
void sum(const float* x, int64_t n, double* partial, double* result, cudaStream_t s);
void square_sum(const float* x, int64_t n, double* partial, double* result, cudaStream_t s);

// quant/train/adam.h. `squares` [1]: the sum of squares of all gradients; gradients are multiplied
// by min(1, limit / sqrt(squares)) first.
struct AdamRates {
  float rate, decay, beta1, beta2, mean_factor, square_factor, eps;
};
void adam(const AdamRates& step, const double* squares, double limit, const float* gradient,
          int64_t n, float* w, float* mean, float* square, cudaStream_t s);

// The parts of quant/train/muon.h around its products, for `count` equal matrices of `size` values
// that lie `stride` apart in the float arrays and follow each other in the bf16 ones.
struct MatrixSet {
  int64_t count = 0, size = 0, stride = 0;
};
// mean <- momentum mean + g, then gradient <- u = g + momentum mean, where g is the clipped
// gradient as in adam(); partial [count, kMuonBlocks]: sums of u^2.
inline constexpr int64_t kMuonBlocks = 16;
void nesterov(const MatrixSet& set, float momentum, const double* squares, double limit,
              float* gradient, float* mean, double* partial, cudaStream_t s);
// x = u / (margin |u|), |u| from `partial`; zeros stay zeros.
void normalise(const MatrixSet& set, const float* u, const double* partial, float margin, bf16* x,
               cudaStream_t s);
// w -= length x.
void take_step(const MatrixSet& set, float length, const bf16* x, float* w, cudaStream_t s);

}  // namespace crumb::quant::train::cuda

// One table of functions per instruction set; scalar.cpp is the specification.
//
// Every function works on the caller's memory: no allocation, threads, files or exceptions.
// The integer part is exact, so it is bit-equal on every backend. Float work has one defined order,
// so that all backends give the same bits:
//   - a reduction over n values keeps 16 virtual lanes (value i goes to lane i mod 16, ascending i,
//     by fused multiply-add where there is a product), then folds lanes i += i+8, +4, +2, +1;
//   - everything else is element by element with the operations written in the comment;
//   - exp is the polynomial in kernels/scalar_math.h.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/layout.h"

namespace crumb::kernels {

// Half-open range. For packed matrices it counts strips of 32 rows, for float ones rows.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

// T rows of int8 activations, x ~ q * scale, one scale per `group` columns. group is 32, 64, or K
// rounded up to 32 (one scale a token; then the weights' group must be all of K too). Rows are
// `stride` columns long, zero padded. Scales are 0 or at least 2^-110, so that half of one is
// exact.
struct QuantizedRows {
  const int8_t* q = nullptr;      // [T, stride], 64-byte aligned rows, values in [-127, 127]
  const float* scales = nullptr;  // [T, groups]
  const int32_t* sums = nullptr;  // [T, groups], sum of q over the group
  int64_t tokens = 0;             // T
  int64_t stride = 0;             // multiple of 64, >= padded_columns(K)
  int64_t group = 0;              // divides the weights' group, or covers all of K
  int64_t groups = 0;             // ceil(padded_columns(K) / group)
};

// Cached keys and values of one head and one chunk of positions, p counted from the chunk's start.
// Keys lie in tiles of 16 positions, so that a register lane is a position; the last tile may be
// read to its end, whatever stands there.
inline constexpr int64_t kKeyTile = 16;
inline constexpr int64_t kAttendChunk = 512;  // most positions of one call
inline constexpr int64_t kAttendRows = 24;    // most queries of one call
enum class KvType : uint8_t { kF32, kF16, kI8 };
struct KvHead {
  const void* k = nullptr;         // element d of p at (p / 16 * Dh + d) * 16 + p % 16
  const void* v = nullptr;         // [positions, Dh]
  const float* k_scale = nullptr;  // [positions], kI8 only
  const float* v_scale = nullptr;  // [positions], kI8 only
  KvType type = KvType::kF16;
};

// One query against the positions [first, n) of a chunk, and its part of the softmax.
struct AttendRow {
  const float* q = nullptr;  // [Dh]
  float* out = nullptr;      // [Dh], result: sum_p w_p * v_p
  int64_t n = 0;             // 1..kAttendChunk
  float max = 0;             // result: the largest score
  float sum = 0;             // result: sum_p exp(score_p - max)
  int64_t first = 0;         // 0..n-1; positions before it weigh nothing (a window of attention)
};

struct Backend {
  std::string_view name;

  // y[t * ldy + n] = sum_k w[n, k] * x[t, k] for the rows of the strips in `strips` (never past N).
  // Per row and token, for activation groups a ascending, g the weight group holding a:
  //   acc = 2 * sum(code * q) - zero2 * sum(q)                                       (int32, exact)
  //   f   = fma(float(acc), (0.5f * float(scale[g])) * x.scale[a], f)                (from f = 0)
  // T = 1 is the GEMV of decoding, T > 1 gives the same bits.
  void (*matmul)(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                 int64_t ldy) noexcept;

  // y[t * ldy + n] = dot(w[n], x[t]) in the 16-lane order, w [N, K] and x [T, K] row-major floats.
  void (*matmul_f32)(const float* w, int64_t K, const float* x, int64_t T, Range rows, float* y,
                     int64_t ldy) noexcept;

  // One token: q [padded to `stride`, zero filled], scales and sums [groups]. Per group:
  // m = max|x|, scale = m / 127, q = round-to-nearest-even(x * (127 / m)). m < 2^-100 counts as 0
  // and gives scale 0, q 0; a NaN in x gives scale NaN. K rounded up to 32 is covered by groups.
  void (*quantize_row)(const float* x, int64_t K, int64_t group, int64_t stride, int8_t* q,
                       float* scales, int32_t* sums) noexcept;

  // y = x * (1 / sqrt(sum(x^2) / n + eps)) * weight: ((x * r) * weight), y may alias x.
  void (*rmsnorm)(const float* x, const float* weight, int64_t n, float eps, float* y) noexcept;

  // Rotates pairs (2i, 2i+1) of `heads` consecutive heads in place:
  // (a, b) -> (fma(a, cos, -(b * sin)), fma(a, sin, b * cos)), cos and sin [Dh / 2].
  void (*rope)(float* x, int64_t heads, int64_t Dh, const float* cos, const float* sin) noexcept;

  // gate = (gate / (1 + exp(-gate))) * up, n values.
  void (*silu_mul)(float* gate, const float* up, int64_t n) noexcept;
  // gate = gelu(gate) * up, GeGLU (Shazeer, "GLU variants improve transformer", 2020), by the tanh
  // form: gelu(x) = x / 2 * (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715
  // x^3).
  //   t = kGeluTwice * (x + kGeluCube * (x * x * x)), gate = (x / (1 + exp(-t))) * up
  void (*gelu_mul)(float* gate, const float* up, int64_t n) noexcept;

  // Signs, then a normalised Hadamard transform of each block of `block` columns, in place.
  // signs [K]: +1 or -1; block is a power of two in 32..512 dividing K. Butterflies at distance
  // 1, 2, 4, ..: (a, b) -> (a + b, a - b); the factor 1/sqrt(block) is multiplied at the end.
  void (*hadamard)(float* x, const float* signs, int64_t K, int64_t block) noexcept;

  // Attention of `count` <= kAttendRows queries that share a head's keys and values. Per row:
  //   s_p = fma over d ascending (q[d], k_p[d]) from 0, (kI8: * k_scale[p]), * scale;
  //         -infinity before `first`
  //   max = largest s_p (never a NaN), e_p = exp(s_p - max), sum = e_p in the 16-lane order over p
  //   out[d] = fma over p ascending (w_p, v_p[d]) from 0, w_p = e_p (kI8: e_p * v_scale[p])
  // scores [kAttendRows, kAttendChunk] is scratch, 64-byte aligned.
  void (*attend)(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, int64_t count,
                 float* scores) noexcept;

  // One row to binary16 (round to nearest even), and to int8 as one group of quantize_row: returns
  // the scale.
  void (*to_f16)(const float* x, int64_t n, uint16_t* y) noexcept;
  float (*to_i8)(const float* x, int64_t n, int8_t* y) noexcept;

  // Index of the largest value, the lowest index on ties, NaN never (all NaN gives 0); n >= 1.
  int64_t (*argmax)(const float* x, int64_t n) noexcept;
};

// All backends compiled in that this CPU can run, best first; `scalar` is always the last.
std::span<const Backend* const> backends() noexcept;
// Names of all backends compiled in, runnable here or not (for messages and tests).
std::span<const std::string_view> compiled_backends() noexcept;
// The backend called `name`, or null if it is unknown or this CPU cannot run it.
const Backend* find_backend(std::string_view name) noexcept;
// CPU features that decided, for humans: "avx2 fma f16c avx512f ...".
std::string_view cpu_features() noexcept;

}  // namespace crumb::kernels

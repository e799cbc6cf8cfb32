// The specification: plain loops, the formula above each function. Every other backend must give
// the same bits. Products that are summed use std::fma, because that is what the vector units do.
#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/backend.h"
#include "kernels/float16.h"
#include "kernels/layout.h"
#include "kernels/scalar_math.h"

namespace crumb::kernels {

extern const Backend kScalar;

namespace {

constexpr int64_t kChunk = kColumnAlign;
// Below this |x| everything counts as 0: 127 / m stays finite and scale / 2 stays exact.
constexpr float kQuantizeFloor = 0x1p-100f;

// sum over the 32 columns of one chunk of code * q, for one row of a strip.
template <int bits>
int32_t chunk_dot(const uint8_t* strip, int64_t row, int64_t k0, const int8_t* q) {
  int32_t sum = 0;
  for (int64_t j = 0; j < kChunk; ++j) {
    const CodePlace place = code_place(bits, row, k0 + j);
    constexpr int kLowMask = bits == 3 ? 3 : (1 << bits) - 1;
    int32_t code = (strip[place.byte] >> place.shift) & kLowMask;
    if (bits == 3) code |= ((strip[place.high_byte] >> place.high_shift) & 1) << 2;
    sum += code * q[k0 + j];
  }
  return sum;
}

// y[t, n] = f after f = fma(float(acc_a), (scale_g / 2) * x.scale_a, f) over activation groups a,
// acc_a = 2 * sum_k code * q - zero2 * sum_k q.
template <int bits>
void matmul_bits(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
                 int64_t ldy) {
  const int64_t columns = padded_columns(w.cols);
  const int64_t groups = group_count(w.cols, w.group);
  const int64_t end = std::min(strips.end * kStripRows, w.rows);
  for (int64_t n = strips.begin * kStripRows; n < end; ++n) {
    const int64_t s = n / kStripRows;
    const int64_t row = n % kStripRows;
    const uint8_t* strip = w.codes + s * strip_code_bytes(w.cols, bits);
    for (int64_t t = 0; t < x.tokens; ++t) {
      float f = 0.0f;
      for (int64_t a = 0; a < x.groups; ++a) {
        const int64_t first = a * x.group;
        const int64_t last = std::min(first + x.group, columns);
        int32_t dot = 0;
        for (int64_t k = first; k < last; k += kChunk) {
          dot += chunk_dot<bits>(strip, row, k, x.q + t * x.stride);
        }
        const int64_t g = (s * groups + first / w.group) * kStripRows + row;
        const int32_t zero2 = w.grid == Grid::kAsym ? 2 * w.zeros[g] : grid_zero2(w.grid, bits);
        const int32_t acc = 2 * dot - zero2 * x.sums[t * x.groups + a];
        const float scale = (0.5f * f16_to_f32(w.scales[g])) * x.scales[t * x.groups + a];
        f = std::fma(static_cast<float>(acc), scale, f);
      }
      y[t * ldy + n] = f;
    }
  }
}

void matmul(const PackedMatrix& w, const QuantizedRows& x, Range strips, float* y,
            int64_t ldy) noexcept {
  assert(valid_bits(w.bits) && valid_group(w.group, w.cols) && w.cols <= kMaxColumns);
  assert(w.group == w.cols || w.group % x.group == 0);
  assert(x.groups == group_count(padded_columns(w.cols), x.group));
  switch (w.bits) {
    case 2:
      return matmul_bits<2>(w, x, strips, y, ldy);
    case 3:
      return matmul_bits<3>(w, x, strips, y, ldy);
    case 4:
      return matmul_bits<4>(w, x, strips, y, ldy);
    default:
      return matmul_bits<8>(w, x, strips, y, ldy);
  }
}

// dot(a, b): lane[i mod 16] = fma(a_i, b_i, lane), then the fold. b is read through `value`.
template <class Value>
float dot(const float* a, int64_t n, Value value) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] = std::fma(a[i], value(i), lanes[i % kLanes]);
  return fold_lanes(lanes);
}

// y[t, n] = dot(w[n], x[t]).
void matmul_f32(const float* w, int64_t K, const float* x, int64_t T, Range rows, float* y,
                int64_t ldy) noexcept {
  for (int64_t n = rows.begin; n < rows.end; ++n) {
    for (int64_t t = 0; t < T; ++t) {
      const float* row = x + t * K;
      y[t * ldy + n] = dot(w + n * K, K, [row](int64_t i) { return row[i]; });
    }
  }
}

// max |x|, compared as integers: the order of non-negative floats, with NaN above infinity, so that
// a NaN in x always reaches the scale.
float absmax(const float* x, int64_t n) {
  int32_t m = 0;
  for (int64_t i = 0; i < n; ++i) m = std::max(m, std::bit_cast<int32_t>(std::fabs(x[i])));
  return std::bit_cast<float>(m);
}

// q = round-to-nearest-even(x * (127 / m)) clamped to [-127, 127] (NaN gives -127); returns m /
// 127. m below 2^-100 counts as 0: scale 0, q 0.
float quantize_group(const float* x, int64_t n, int8_t* q) {
  const float m = absmax(x, n);
  if (m < kQuantizeFloor) {
    std::fill(q, q + n, int8_t{0});
    return 0.0f;
  }
  const float inverse = 127.0f / m;
  for (int64_t i = 0; i < n; ++i) {
    float r = x[i] * inverse;
    r = r > -127.0f ? r : -127.0f;
    r = r < 127.0f ? r : 127.0f;
    q[i] = static_cast<int8_t>(std::nearbyint(r));
  }
  return m / 127.0f;
}

void quantize_row(const float* x, int64_t K, int64_t group, int64_t stride, int8_t* q,
                  float* scales, int32_t* sums) noexcept {
  const int64_t groups = group_count(padded_columns(K), group);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * group;
    const int64_t last = std::min(first + group, K);
    scales[g] = quantize_group(x + first, last - first, q + first);
    sums[g] = 0;
    for (int64_t k = first; k < last; ++k) sums[g] += q[k];
  }
  std::fill(q + K, q + stride, int8_t{0});
}

// y = (x * r) * weight, r = 1 / sqrt(sum(x^2) / n + eps).
void rmsnorm(const float* x, const float* weight, int64_t n, float eps, float* y) noexcept {
  const float squares = dot(x, n, [x](int64_t i) { return x[i]; });
  const float r = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] * r) * weight[i];
}

// (a, b) -> (fma(a, cos, -(b * sin)), fma(a, sin, b * cos)).
void rope(float* x, int64_t heads, int64_t Dh, const float* cos, const float* sin) noexcept {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < Dh / 2; ++i) {
      float& a = x[h * Dh + 2 * i];
      float& b = x[h * Dh + 2 * i + 1];
      const float first = std::fma(a, cos[i], -(b * sin[i]));
      b = std::fma(a, sin[i], b * cos[i]);
      a = first;
    }
  }
}

// gate = (gate / (1 + exp(-gate))) * up.
void silu_mul(float* gate, const float* up, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) gate[i] = (gate[i] / (1.0f + exp_f32(-gate[i]))) * up[i];
}

void gelu_mul(float* gate, const float* up, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    const float x = gate[i];
    const float t = kGeluTwice * (x + kGeluCube * (x * x * x));
    gate[i] = (x / (1.0f + exp_f32(-t))) * up[i];
  }
}

// x * signs, then butterflies (a, b) -> (a + b, a - b) at distance 1, 2, 4, .., then *
// 1/sqrt(block).
void hadamard(float* x, const float* signs, int64_t K, int64_t block) noexcept {
  const float norm = 1.0f / std::sqrt(static_cast<float>(block));
  for (int64_t i = 0; i < K; ++i) x[i] *= signs[i];
  for (int64_t h = 1; h < block; h *= 2) {
    for (int64_t i = 0; i < K; ++i) {
      if ((i & h) != 0) continue;
      const float a = x[i];
      const float b = x[i + h];
      x[i] = a + b;
      x[i + h] = a - b;
    }
  }
  for (int64_t i = 0; i < K; ++i) x[i] *= norm;
}

// Element i of row p of cached keys or values, without its scale.
float kv_value(KvType type, const void* data, int64_t i) {
  switch (type) {
    case KvType::kF32:
      return static_cast<const float*>(data)[i];
    case KvType::kF16:
      return f16_to_f32(static_cast<const uint16_t*>(data)[i]);
    case KvType::kI8:
      break;
  }
  return static_cast<float>(static_cast<const int8_t*>(data)[i]);
}

// s_p = dot(q, k_p) [* k_scale_p] * scale; e_p = exp(s_p - max s); out = (sum_p e_p [* v_scale_p] *
// v_p) by fma with p ascending, divided by sum_p e_p in the 16-lane order.
void attend_row(const KvHead& kv, int64_t Dh, float scale, AttendRow& row, float* scores) noexcept {
  assert(row.n >= 1 && row.n <= kAttendChunk);
  const bool scaled = kv.type == KvType::kI8;
  row.max = -std::numeric_limits<float>::infinity();
  for (int64_t p = 0; p < row.n; ++p) {
    float s = 0.0f;
    for (int64_t d = 0; d < Dh; ++d) {
      const int64_t at = (p / kKeyTile * Dh + d) * kKeyTile + p % kKeyTile;
      s = std::fma(row.q[d], kv_value(kv.type, kv.k, at), s);
    }
    if (scaled) s *= kv.k_scale[p];
    scores[p] = p < row.first ? -std::numeric_limits<float>::infinity() : s * scale;
    row.max = scores[p] > row.max ? scores[p] : row.max;
  }
  float lanes[kLanes] = {};
  std::fill(row.out, row.out + Dh, 0.0f);
  for (int64_t p = 0; p < row.n; ++p) {
    const float e = exp_f32(scores[p] - row.max);
    lanes[p % kLanes] += e;
    const float weight = scaled ? e * kv.v_scale[p] : e;
    for (int64_t d = 0; d < Dh; ++d) {
      row.out[d] = std::fma(weight, kv_value(kv.type, kv.v, p * Dh + d), row.out[d]);
    }
  }
  row.sum = fold_lanes(lanes);
}

void attend(const KvHead& kv, int64_t Dh, float scale, AttendRow* rows, int64_t count,
            float* scores) noexcept {
  for (int64_t r = 0; r < count; ++r) attend_row(kv, Dh, scale, rows[r], scores);
}

void to_f16(const float* x, int64_t n, uint16_t* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = f32_to_f16(x[i]);
}

float to_i8(const float* x, int64_t n, int8_t* y) noexcept { return quantize_group(x, n, y); }

// First i with x[i] = max; NaN never is the maximum (all NaN: 0).
int64_t argmax(const float* x, int64_t n) noexcept {
  float m = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) m = x[i] > m ? x[i] : m;
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == m) return i;
  }
  return 0;
}

}  // namespace

const Backend kScalar = {"scalar", matmul,   matmul_f32, quantize_row, rmsnorm, rope,  silu_mul,
                         gelu_mul, hadamard, attend,     to_f16,       to_i8,   argmax};

}  // namespace crumb::kernels

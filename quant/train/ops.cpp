#include "quant/train/ops.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/backend.h"
#include "kernels/scalar_math.h"
#include "quant/blas.h"

namespace crumb::quant::train {
namespace {

// Sums in double, in lanes that do not wait for one another.
double sum_of_squares(std::span<const float> x) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const auto v = static_cast<double>(x[i + l]);
      lanes[l] += v * v;
    }
  for (; i < x.size(); ++i) lanes[0] += static_cast<double>(x[i]) * x[i];
  return std::accumulate(lanes.begin(), lanes.end(), 0.0);
}

double inverse_rms(std::span<const float> x, float eps) {
  const double sum = sum_of_squares(x);
  return 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + static_cast<double>(eps));
}

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

int to_int(std::size_t n) { return static_cast<int>(n); }

// direction 1 turns forward, -1 back.
void turn(std::span<float> x, int64_t head_dim, std::span<const float> cos,
          std::span<const float> sin, float direction) {
  const auto half = static_cast<std::size_t>(head_dim / 2);
  const std::size_t S = cos.size() / half, width = x.size() / S;
  assert(x.size() == S * width && width % (2 * half) == 0 && sin.size() == cos.size());
  for (std::size_t t = 0; t < S; ++t)
    for (std::size_t i = 0; i < width / 2; ++i) {
      float* pair = x.data() + t * width + 2 * i;
      const float c = cos[t * half + i % half], s = direction * sin[t * half + i % half];
      const float a = pair[0], b = pair[1];
      pair[0] = a * c - b * s;
      pair[1] = a * s + b * c;
    }
}

}  // namespace

void single_threaded_blas() { load_blas(); }

void rmsnorm(std::span<const float> x, std::span<const float> gain, float eps, std::span<float> y) {
  const std::size_t D = gain.size();
  assert(x.size() % D == 0 && y.size() == x.size());
  for (std::size_t row = 0; row < x.size(); row += D) {
    const auto r = static_cast<float>(inverse_rms(x.subspan(row, D), eps));
    for (std::size_t i = 0; i < D; ++i) y[row + i] = x[row + i] * r * gain[i];
  }
}

void rmsnorm_backward(std::span<const float> x, std::span<const float> gain, float eps,
                      std::span<const float> dy, std::span<float> dx, std::span<float> dgain) {
  const std::size_t D = gain.size();
  std::vector<double> gain_sum(dgain.empty() ? 0 : D);
  for (std::size_t row = 0; row < x.size(); row += D) {
    const double r = inverse_rms(x.subspan(row, D), eps);
    double dot = 0;
    for (std::size_t i = 0; i < D; ++i)
      dot += static_cast<double>(dy[row + i]) * gain[i] * x[row + i];
    const double pull = r * r * r * dot / static_cast<double>(D);
    if (!dx.empty())
      for (std::size_t i = 0; i < D; ++i)
        dx[row + i] +=
            static_cast<float>(r * dy[row + i] * gain[i] - pull * static_cast<double>(x[row + i]));
    for (std::size_t i = 0; i < gain_sum.size(); ++i)
      gain_sum[i] += static_cast<double>(dy[row + i]) * x[row + i] * r;
  }
  for (std::size_t i = 0; i < gain_sum.size(); ++i) dgain[i] += static_cast<float>(gain_sum[i]);
}

// exp(v) = 2^n exp(r), n = round(v / ln 2), r = v - n ln 2 in two steps; the polynomial is that of
// kernels/scalar_math.h, without its fma, which would be a call here.
void exp_shifted(std::span<float> x, float shift) {
  constexpr float kRound = 0x1.8p23f;  // adding it rounds to a whole number
  for (float& value : x) {
    float v = value - shift;
    v = v < kernels::kExpLow ? kernels::kExpLow : v;
    const float n = (v * kernels::kExpInverseLn2 + kRound) - kRound;
    const float r = (v - n * kernels::kExpLn2High) - n * kernels::kExpLn2Low;
    const auto& c = kernels::kExpCoefficients;
    const float p = (((c[4] * r + c[3]) * r + c[2]) * r + c[1]) * r + c[0];
    const float y = (r * r * p + r) + 1.0f;
    const int32_t bits = std::bit_cast<int32_t>(y) + (static_cast<int32_t>(n) << 23);
    value = v > kernels::kExpLow ? std::bit_cast<float>(bits) : 0.0f;
  }
}

void linear(std::span<const float> x, std::span<const float> w, std::span<const float> bias,
            int64_t K, std::span<float> y) {
  const auto k = static_cast<std::size_t>(K);
  const std::size_t T = x.size() / k, N = w.size() / k;
  assert(x.size() == T * k && w.size() == N * k && y.size() == T * N);
  for (std::size_t t = 0; t < T && !bias.empty(); ++t)
    std::copy(bias.begin(), bias.end(), y.begin() + static_cast<std::ptrdiff_t>(t * N));
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_int(T), to_int(N), to_int(k), 1.0f,
              x.data(), to_int(k), w.data(), to_int(k), bias.empty() ? 0.0f : 1.0f, y.data(),
              to_int(N));
}

void linear_backward(std::span<const float> x, std::span<const float> w, int64_t K,
                     std::span<const float> dy, const LinearGradients& gradients) {
  const auto k = static_cast<std::size_t>(K);
  const std::size_t T = x.size() / k, N = w.size() / k;
  assert(dy.size() == T * N);
  if (!gradients.dx.empty())
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_int(T), to_int(k), to_int(N), 1.0f,
                dy.data(), to_int(N), w.data(), to_int(k), 1.0f, gradients.dx.data(), to_int(k));
  if (!gradients.dw.empty())
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, to_int(N), to_int(k), to_int(T), 1.0f,
                dy.data(), to_int(N), x.data(), to_int(k), 1.0f, gradients.dw.data(), to_int(k));
  for (std::size_t n = 0; n < gradients.dbias.size(); ++n) {
    double sum = 0;
    for (std::size_t t = 0; t < T; ++t) sum += static_cast<double>(dy[t * N + n]);
    gradients.dbias[n] += static_cast<float>(sum);
  }
}

void rope(std::span<float> x, int64_t head_dim, std::span<const float> cos,
          std::span<const float> sin) {
  turn(x, head_dim, cos, sin, 1.0f);
}

void rope_backward(std::span<float> dx, int64_t head_dim, std::span<const float> cos,
                   std::span<const float> sin) {
  turn(dx, head_dim, cos, sin, -1.0f);
}

void silu_mul(std::span<const float> gate, std::span<const float> up, std::span<float> y) {
  assert(gate.size() == up.size() && y.size() == up.size());
  std::copy(gate.begin(), gate.end(), y.begin());
  kernels::backends().front()->silu_mul(y.data(), up.data(), std::ssize(y));
}

void silu_mul_backward(std::span<const float> gate, std::span<const float> up,
                       std::span<const float> dy, std::span<float> dgate, std::span<float> dup) {
  assert(gate.size() == dy.size() && up.size() == dy.size());
  for (std::size_t i = 0; i < dy.size(); ++i) {
    const float s = sigmoid(gate[i]);
    if (!dup.empty()) dup[i] += dy[i] * gate[i] * s;
    if (!dgate.empty()) dgate[i] += dy[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s));
  }
}

}  // namespace crumb::quant::train

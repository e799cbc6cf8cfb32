// Functions on rows: every backend against the scalar one bit by bit, and against a plain double
// reference. All buffers end at guard pages.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "kernels/float16.h"
#include "tests/kernels/over_backends.h"
#include "tests/support/random_matrix.h"

namespace crumb::kernels {
namespace {

using test::as_size;
using test::bits_of;
using Floats = test::GuardedBuffer<float>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class Rows : public test::OverBackends {};
INSTANTIATE_TEST_SUITE_P(Backends, Rows, testing::ValuesIn(test::backend_names()),
                         test::backend_label);

std::vector<int64_t> widths() {
  std::vector<int64_t> list;
  for (int64_t n = 1; n <= 70; ++n) list.push_back(n);
  for (const int64_t n : {127, 128, 129, 300, 576, 1536}) list.push_back(n);
  return list;
}

struct Quantized {
  Quantized(const Backend& backend, const Floats& x, int64_t K, int64_t group)
      : stride((padded_columns(K) + 63) / 64 * 64),
        groups(group_count(padded_columns(K), group)),
        q(as_size(stride)),
        scales(as_size(groups)),
        sums(as_size(groups)) {
    std::fill(q.begin(), q.end(), int8_t{99});
    backend.quantize_row(x.data(), K, group, stride, q.data(), scales.data(), sums.data());
  }
  int64_t stride;
  int64_t groups;
  test::GuardedBuffer<int8_t> q;
  test::GuardedBuffer<float> scales;
  test::GuardedBuffer<int32_t> sums;
};

TEST_P(Rows, QuantizeRow) {
  std::mt19937_64 rng(1);
  for (const int64_t K : widths()) {
    for (const int64_t group : {int64_t{32}, int64_t{64}, padded_columns(K)}) {
      Floats x(as_size(K));
      test::fill_floats(x.span(), rng);
      Quantized a(backend(), x, K, group);
      Quantized b(scalar(), x, K, group);
      ASSERT_TRUE(std::equal(a.q.begin(), a.q.end(), b.q.begin())) << "K " << K;
      ASSERT_EQ(bits_of(a.scales.span()), bits_of(b.scales.span())) << "K " << K;
      ASSERT_TRUE(std::equal(a.sums.begin(), a.sums.end(), b.sums.begin())) << "K " << K;
      for (int64_t g = 0; g < a.groups; ++g) {
        double m = 0.0;
        int32_t sum = 0;
        for (int64_t k = g * group; k < std::min(K, (g + 1) * group); ++k) {
          m = std::max(m, static_cast<double>(std::fabs(x[as_size(k)])));
          sum += a.q[as_size(k)];
        }
        EXPECT_EQ(a.sums[as_size(g)], sum);
        EXPECT_NEAR(a.scales[as_size(g)], m / 127, m * 1e-9);
        for (int64_t k = g * group; k < std::min(K, (g + 1) * group); ++k) {
          EXPECT_LE(std::fabs(a.q[as_size(k)] - x[as_size(k)] * 127 / m), 0.5 + 1e-4);
        }
      }
      for (int64_t k = K; k < a.stride; ++k) EXPECT_EQ(a.q[as_size(k)], 0);
    }
  }
}

TEST_P(Rows, QuantizeRowOfOddValues) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  // The value every other is 0 beside; the scale it must give; its code.
  struct Case {
    float value, scale;
    int code;
  };
  const Case cases[] = {{0.0f, 0.0f, 0},
                        {-0.0f, 0.0f, 0},
                        {tiny, 0.0f, 0},
                        {0x1p-101f, 0.0f, 0},
                        {0x1p-100f, 0x1p-100f / 127, 127},
                        {-3e38f, 3e38f / 127, -127},
                        {127.0f, 1.0f, 127},
                        {kInfinity, kInfinity, -127}};
  for (const Case& c : cases) {
    for (int64_t at = 0; at < 40; ++at) {
      Floats x(40);
      x[as_size(at)] = c.value;
      const Quantized r(backend(), x, 40, 64);
      ASSERT_EQ(r.scales[0], c.scale) << c.value;
      ASSERT_EQ(r.q[as_size(at)], c.code) << c.value;
    }
  }
  for (int64_t at = 0; at < 40; ++at) {
    Floats x(40);
    std::fill(x.begin(), x.end(), 1.0f);
    x[as_size(at)] = kNan;
    ASSERT_TRUE(std::isnan(Quantized(backend(), x, 40, 64).scales[0])) << at;
  }
}

TEST_P(Rows, RoundsHalvesToEven) {
  // 127 fixes the scale at 1, so that the others are codes and halves of codes.
  Floats x(64);
  x[0] = 127.0f;
  for (int64_t k = 1; k < 64; ++k) x[as_size(k)] = static_cast<float>(k - 32) + 0.5f;
  const Quantized r(backend(), x, 64, 64);
  for (int64_t k = 1; k < 64; ++k) {
    EXPECT_EQ(r.q[as_size(k)] % 2, 0) << x[as_size(k)];
    EXPECT_EQ(std::fabs(static_cast<float>(r.q[as_size(k)]) - x[as_size(k)]), 0.5f);
  }
}

TEST_P(Rows, ToI8) {
  std::mt19937_64 rng(2);
  for (const int64_t n : widths()) {
    Floats x(as_size(n));
    test::fill_floats(x.span(), rng);
    test::GuardedBuffer<int8_t> a(as_size(n));
    test::GuardedBuffer<int8_t> b(as_size(n));
    const float scale = backend().to_i8(x.data(), n, a.data());
    ASSERT_EQ(scale, scalar().to_i8(x.data(), n, b.data()));
    ASSERT_TRUE(std::equal(a.begin(), a.end(), b.begin())) << n;
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(a[as_size(i)] * scale, x[as_size(i)], 0.501f * scale);
    }
  }
}

TEST_P(Rows, RmsNorm) {
  std::mt19937_64 rng(3);
  for (const int64_t n : widths()) {
    Floats x(as_size(n));
    Floats weight(as_size(n));
    test::fill_floats(x.span(), rng);
    test::fill_floats(weight.span(), rng);
    Floats a(as_size(n));
    Floats b(as_size(n));
    backend().rmsnorm(x.data(), weight.data(), n, 1e-5f, a.data());
    scalar().rmsnorm(x.data(), weight.data(), n, 1e-5f, b.data());
    ASSERT_EQ(bits_of(a.span()), bits_of(b.span())) << n;
    double squares = 0.0;
    for (const float v : x.span()) squares += static_cast<double>(v) * v;
    const double r = 1.0 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    for (int64_t i = 0; i < n; ++i) {
      const double expected = x[as_size(i)] * r * weight[as_size(i)];
      EXPECT_NEAR(a[as_size(i)], expected, 1e-5 * std::fabs(expected) + 1e-30);
    }
    backend().rmsnorm(x.data(), weight.data(), n, 1e-5f, x.data());
    ASSERT_EQ(bits_of(x.span()), bits_of(a.span())) << "in place";
  }
}

TEST_P(Rows, Rope) {
  std::mt19937_64 rng(4);
  for (const int64_t Dh : {2, 4, 6, 8, 10, 16, 30, 64, 80, 128}) {
    for (const int64_t heads : {1, 3, 9}) {
      Floats x(as_size(heads * Dh));
      Floats cos(as_size(Dh / 2));
      Floats sin(as_size(Dh / 2));
      test::fill_floats(x.span(), rng);
      for (std::size_t i = 0; i < cos.size(); ++i) {
        const float angle = test::uniform_float(rng, -3.0f, 3.0f);
        cos[i] = std::cos(angle);
        sin[i] = std::sin(angle);
      }
      const std::vector<float> before(x.begin(), x.end());
      std::vector<float> expected = before;
      backend().rope(x.data(), heads, Dh, cos.data(), sin.data());
      scalar().rope(expected.data(), heads, Dh, cos.data(), sin.data());
      ASSERT_EQ(bits_of(x.span()), bits_of(expected)) << "Dh " << Dh;
      for (int64_t i = 0; i < heads * Dh / 2; ++i) {
        const double a = before[as_size(2 * i)];
        const double b = before[as_size(2 * i + 1)];
        const double c = cos[as_size(i % (Dh / 2))];
        const double s = sin[as_size(i % (Dh / 2))];
        const double tolerance = 1e-6 * (std::fabs(a) + std::fabs(b));
        EXPECT_NEAR(x[as_size(2 * i)], a * c - b * s, tolerance);
        EXPECT_NEAR(x[as_size(2 * i + 1)], a * s + b * c, tolerance);
      }
    }
  }
}

TEST_P(Rows, SiluMul) {
  std::mt19937_64 rng(5);
  for (const int64_t n : widths()) {
    Floats gate(as_size(n));
    Floats up(as_size(n));
    test::fill_floats(gate.span(), rng, 7.0f);
    test::fill_floats(up.span(), rng);
    const std::vector<float> before(gate.begin(), gate.end());
    std::vector<float> expected = before;
    backend().silu_mul(gate.data(), up.data(), n);
    scalar().silu_mul(expected.data(), up.data(), n);
    ASSERT_EQ(bits_of(gate.span()), bits_of(expected)) << n;
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double exact = before[i] / (1 + std::exp(-static_cast<double>(before[i]))) * up[i];
      EXPECT_NEAR(gate[i], exact, 1e-6 * std::fabs(exact) + 1e-30);
    }
  }
}

// A gated activation of every backend against the scalar one, bit for bit.
using GatedActivation = void (*Backend::*)(float* gate, const float* up, int64_t n) noexcept;

// Gates from `low` on, `range` wide: dense enough to show any change in the order of the
// exponential's operations.
void expect_sweep(const Backend& backend, const Backend& scalar, GatedActivation activation,
                  float low, float range) {
  const int64_t n = 400000;
  std::vector<float> a(as_size(n));
  const std::vector<float> up(as_size(n), 1.0f);
  for (int64_t i = 0; i < n; ++i) {
    a[as_size(i)] = low + range * (static_cast<float>(i) / static_cast<float>(n));
  }
  std::vector<float> b = a;
  (backend.*activation)(a.data(), up.data(), n);
  (scalar.*activation)(b.data(), up.data(), n);
  ASSERT_TRUE(bits_of(a) == bits_of(b));
}

void expect_odd_values(const Backend& backend, const Backend& scalar, GatedActivation activation) {
  const float values[] = {0.0f,  -0.0f,  kInfinity, kNan,    87.3f,  -87.3f,  88.72283f, -88.72283f,
                          89.0f, -89.0f, 1e-40f,    -1e-40f, 104.0f, -104.0f, 3e38f,     -3e38f};
  for (const float value : values) {
    Floats a(13);
    Floats up(13);
    std::fill(a.begin(), a.end(), value);
    std::fill(up.begin(), up.end(), 1.0f);
    std::vector<float> b(a.begin(), a.end());
    (backend.*activation)(a.data(), up.data(), 13);
    (scalar.*activation)(b.data(), up.data(), 13);
    ASSERT_EQ(bits_of(a.span()), bits_of(b)) << value;
  }
}

TEST_P(Rows, SiluMulSweep) { expect_sweep(backend(), scalar(), &Backend::silu_mul, -88.0f, 96.0f); }

TEST_P(Rows, SiluMulOfOddValues) { expect_odd_values(backend(), scalar(), &Backend::silu_mul); }

TEST_P(Rows, GeluMul) {
  std::mt19937_64 rng(5);
  for (const int64_t n : widths()) {
    Floats gate(as_size(n));
    Floats up(as_size(n));
    test::fill_floats(gate.span(), rng, 7.0f);
    test::fill_floats(up.span(), rng);
    const std::vector<float> before(gate.begin(), gate.end());
    std::vector<float> expected = before;
    backend().gelu_mul(gate.data(), up.data(), n);
    scalar().gelu_mul(expected.data(), up.data(), n);
    ASSERT_EQ(bits_of(gate.span()), bits_of(expected)) << n;
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double x = before[i];
      const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      const double exact = x / 2 * (1 + std::tanh(u)) * up[i];
      // Below about -3 the exponent is large and so is its rounding.
      EXPECT_NEAR(gate[i], exact, 1e-5 * std::fabs(exact) + 1e-7);
    }
  }
}

TEST_P(Rows, GeluMulSweep) { expect_sweep(backend(), scalar(), &Backend::gelu_mul, -12.0f, 24.0f); }

TEST_P(Rows, GeluMulOfOddValues) { expect_odd_values(backend(), scalar(), &Backend::gelu_mul); }

TEST_P(Rows, Hadamard) {
  std::mt19937_64 rng(6);
  for (const int64_t block : {32, 64, 128, 256, 512}) {
    for (const int64_t blocks : {1, 3}) {
      const int64_t K = block * blocks;
      Floats x(as_size(K));
      Floats signs(as_size(K));
      test::fill_floats(x.span(), rng);
      for (float& s : signs.span()) s = (rng() & 1) != 0 ? 1.0f : -1.0f;
      const std::vector<float> before(x.begin(), x.end());
      std::vector<float> expected = before;
      backend().hadamard(x.data(), signs.data(), K, block);
      scalar().hadamard(expected.data(), signs.data(), K, block);
      ASSERT_EQ(bits_of(x.span()), bits_of(expected)) << "block " << block;
      for (int64_t i = 0; i < K; ++i) {
        double sum = 0.0;
        double size = 0.0;
        for (int64_t j = i / block * block; j < (i / block + 1) * block; ++j) {
          const int odd = std::popcount(static_cast<uint64_t>((i % block) & (j % block))) % 2;
          const double v = static_cast<double>(before[as_size(j)]) * signs[as_size(j)];
          sum += odd != 0 ? -v : v;
          size += std::fabs(v);
        }
        const double norm = 1.0 / std::sqrt(static_cast<double>(block));
        ASSERT_NEAR(x[as_size(i)], sum * norm, 12 * 0x1p-24 * size * norm) << i;
      }
    }
  }
}

TEST_P(Rows, ToF16) {
  std::mt19937_64 rng(7);
  for (const int64_t n : widths()) {
    Floats x(as_size(n));
    for (float& v : x.span()) v = std::bit_cast<float>(static_cast<uint32_t>(rng()));
    test::GuardedBuffer<uint16_t> y(as_size(n));
    backend().to_f16(x.data(), n, y.data());
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], f32_to_f16(x[i])) << x[i];
  }
  for (uint32_t h = 0; h < 65536; h += 8) {
    float x[8];
    uint16_t y[8];
    for (uint32_t i = 0; i < 8; ++i) x[i] = f16_to_f32(static_cast<uint16_t>(h + i));
    backend().to_f16(x, 8, y);
    for (uint32_t i = 0; i < 8; ++i) ASSERT_EQ(y[i], f32_to_f16(x[i]));
  }
}

TEST_P(Rows, Argmax) {
  std::mt19937_64 rng(8);
  for (const int64_t n : widths()) {
    Floats x(as_size(n));
    for (int64_t at = 0; at < n; at += 1 + n / 50) {
      for (float& v : x.span()) v = static_cast<float>(test::uniform(rng, -3, 3));
      if ((at & 1) != 0) x[as_size(at)] = 7.0f;
      const auto first = std::max_element(x.begin(), x.end());
      ASSERT_EQ(backend().argmax(x.data(), n), first - x.begin()) << n;
    }
  }
}

TEST_P(Rows, ArgmaxOfOddValues) {
  for (int64_t n : {1, 5, 8, 19}) {
    Floats x(as_size(n));
    std::fill(x.begin(), x.end(), kNan);
    EXPECT_EQ(backend().argmax(x.data(), n), 0) << "all NaN";
    x[as_size(n - 1)] = -kInfinity;
    EXPECT_EQ(backend().argmax(x.data(), n), n - 1) << "-inf is still the largest number";
    std::fill(x.begin(), x.end(), -kInfinity);
    EXPECT_EQ(backend().argmax(x.data(), n), 0);
    x[as_size(n - 1)] = kInfinity;
    EXPECT_EQ(backend().argmax(x.data(), n), n - 1);
  }
  const float zeros[] = {-1.0f, -0.0f, 0.0f};
  EXPECT_EQ(backend().argmax(zeros, 3), 1) << "both zeros are equal";
}

}  // namespace
}  // namespace crumb::kernels

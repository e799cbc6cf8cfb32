// Every backward function against finite differences of its forward function, and every forward
// function against an obvious twin in double.
#include "quant/train/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "quant/train/attention.h"
#include "tests/quant/finite_difference.h"

namespace crumb::quant::train {
namespace {

using Floats = std::vector<float>;

Floats values(int64_t n, uint64_t seed) { return random_weights(n, seed, 0.5f); }
Floats zeros_like(const Floats& v) { return Floats(v.size()); }

TEST(TrainOps, RmsnormForward) {
  const auto x = values(5 * 24, 1), gain = values(24, 2);
  Floats y = zeros_like(x);
  rmsnorm(x, gain, 1e-5f, y);
  for (std::size_t t = 0; t < 5; ++t) {
    double sum = 0;
    for (std::size_t i = 0; i < 24; ++i) sum += static_cast<double>(x[t * 24 + i]) * x[t * 24 + i];
    for (std::size_t i = 0; i < 24; ++i)
      EXPECT_NEAR(y[t * 24 + i], x[t * 24 + i] * gain[i] / std::sqrt(sum / 24 + 1e-5), 1e-6);
  }
}

TEST(TrainOps, RmsnormBackward) {
  auto x = values(5 * 24, 1), gain = values(24, 2);
  const auto dy = values(5 * 24, 3);
  Floats y = zeros_like(x), dx = zeros_like(x), dgain = zeros_like(gain);
  const auto loss = [&] {
    rmsnorm(x, gain, 1e-5f, y);
    return dot(y, dy);
  };
  rmsnorm_backward(x, gain, 1e-5f, dy, dx, dgain);
  expect_gradient("x", x, dx, loss);
  expect_gradient("gain", gain, dgain, loss);
}

TEST(TrainOps, LinearForward) {
  const auto x = values(7 * 20, 1), w = values(9 * 20, 2), bias = values(9, 3);
  for (const bool with_bias : {false, true}) {
    Floats y(7 * 9, std::nanf(""));
    linear(x, w, with_bias ? bias : Floats{}, 20, y);
    for (std::size_t t = 0; t < 7; ++t)
      for (std::size_t n = 0; n < 9; ++n) {
        double sum = with_bias ? bias[n] : 0.0f;
        for (std::size_t k = 0; k < 20; ++k)
          sum += static_cast<double>(x[t * 20 + k]) * w[n * 20 + k];
        EXPECT_NEAR(y[t * 9 + n], sum, 1e-5);
      }
  }
}

TEST(TrainOps, LinearBackward) {
  auto x = values(7 * 20, 1), w = values(9 * 20, 2), bias = values(9, 3);
  const auto dy = values(7 * 9, 4);
  Floats y(7 * 9), dx = zeros_like(x), dw = zeros_like(w), dbias = zeros_like(bias);
  const auto loss = [&] {
    linear(x, w, bias, 20, y);
    return dot(y, dy);
  };
  linear_backward(x, w, 20, dy, {dx, dw, dbias});
  expect_gradient("x", x, dx, loss);
  expect_gradient("w", w, dw, loss);
  expect_gradient("bias", bias, dbias, loss);
  const Floats once = dw;
  linear_backward(x, w, 20, dy, {{}, dw, {}});  // adds, and skips what is empty
  for (std::size_t i = 0; i < dw.size(); ++i) EXPECT_NEAR(dw[i], 2 * once[i], 1e-5);
}

struct Turn {
  Floats cos, sin;  // [S, Dh / 2]
};
Turn turns(int64_t S, int64_t half) {
  Turn turn;
  for (int64_t i = 0; i < S * half; ++i) {
    const double angle = 0.37 * static_cast<double>(i);
    turn.cos.push_back(static_cast<float>(std::cos(angle)));
    turn.sin.push_back(static_cast<float>(std::sin(angle)));
  }
  return turn;
}

TEST(TrainOps, RopeTurnsNeighbours) {
  Floats x = {1, 0, 0, 1, 3, 4, 0, 0};  // two tokens, one head of four
  const auto quarter = static_cast<float>(std::numbers::pi / 2);
  const Floats cos = {1, 1, std::cos(quarter), 1}, sin = {0, 0, std::sin(quarter), 0};
  rope(x, 4, cos, sin);
  const Floats expected = {1, 0, 0, 1, -4, 3, 0, 0};
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], expected[i], 1e-6);
}

TEST(TrainOps, RopeBackward) {
  const Turn turn = turns(6, 4);
  auto x = values(6 * 3 * 8, 1);
  const auto dy = values(6 * 3 * 8, 2);
  Floats dx = dy;
  rope_backward(dx, 8, turn.cos, turn.sin);
  expect_gradient("x", x, dx, [&] {
    Floats y = x;
    rope(y, 8, turn.cos, turn.sin);
    return dot(y, dy);
  });
}

TEST(TrainOps, ExpShifted) {
  Floats x;
  for (float v = -100.0f; v < 3.0f; v += 0.0137f) x.push_back(v);
  Floats y = x;
  exp_shifted(y, 2.5f);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(x[i] - 2.5f));
    if (x[i] - 2.5f < -87.0f)
      EXPECT_LT(y[i], 2e-38f) << x[i];
    else
      EXPECT_NEAR(y[i], expected, 2e-7 * expected) << x[i];
  }
}

TEST(TrainOps, SiluMul) {
  auto gate = values(200, 1), up = values(200, 2);
  const auto dy = values(200, 3);
  for (float& v : gate) v *= 4;
  Floats y(200), dgate(200), dup(200);
  silu_mul(gate, up, y);
  for (std::size_t i = 0; i < y.size(); ++i)
    EXPECT_NEAR(y[i], gate[i] / (1 + std::exp(-static_cast<double>(gate[i]))) * up[i], 1e-5);
  const auto loss = [&] {
    silu_mul(gate, up, y);
    return dot(y, dy);
  };
  silu_mul_backward(gate, up, dy, dgate, dup);
  expect_gradient("gate", gate, dgate, loss);
  expect_gradient("up", up, dup, loss);
}

// Shapes around the tile of 64 queries, with and without groups.
constexpr AttentionShape kShapes[] = {{1, 2, 1, 4}, {9, 3, 3, 6}, {64, 2, 1, 8}, {150, 6, 2, 8}};

struct AttentionCase {
  explicit AttentionCase(const AttentionShape& s)
      : shape(s),
        q(values(s.S * s.heads * s.head_dim, 1)),
        k(values(s.S * s.kv_heads * s.head_dim, 2)),
        v(values(s.S * s.kv_heads * s.head_dim, 3)),
        o(q.size()),
        lse(static_cast<std::size_t>(s.heads * s.S)) {}
  AttentionShape shape;
  Floats q, k, v, o, lse;
};

TEST(TrainOps, AttentionForward) {
  for (const AttentionShape& s : kShapes) {
    AttentionCase c(s);
    attention(s, {c.q, c.k, c.v}, c.o, c.lse);
    const auto at = [&](const Floats& m, int64_t heads, int64_t t, int64_t h, int64_t d) {
      return static_cast<double>(m[static_cast<std::size_t>((t * heads + h) * s.head_dim + d)]);
    };
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t t = 0; t < s.S; ++t) {
        const int64_t kv = h * s.kv_heads / s.heads;
        std::vector<double> p;
        double sum = 0;
        for (int64_t j = 0; j <= t; ++j) {
          double score = 0;
          for (int64_t d = 0; d < s.head_dim; ++d)
            score += at(c.q, s.heads, t, h, d) * at(c.k, s.kv_heads, j, kv, d);
          p.push_back(std::exp(score / std::sqrt(static_cast<double>(s.head_dim))));
          sum += p.back();
        }
        EXPECT_NEAR(c.lse[static_cast<std::size_t>(h * s.S + t)], std::log(sum), 1e-5);
        for (int64_t d = 0; d < s.head_dim; ++d) {
          double expected = 0;
          for (int64_t j = 0; j <= t; ++j)
            expected += p[static_cast<std::size_t>(j)] / sum * at(c.v, s.kv_heads, j, kv, d);
          ASSERT_NEAR(at(c.o, s.heads, t, h, d), expected, 1e-5);
        }
      }
  }
}

TEST(TrainOps, AttentionBackward) {
  for (const AttentionShape& s : kShapes) {
    SCOPED_TRACE(testing::Message() << "S " << s.S << ", H " << s.heads << ", Hk " << s.kv_heads);
    AttentionCase c(s);
    const auto dy = values(std::ssize(c.o), 4);
    Floats dq = zeros_like(c.q), dk = zeros_like(c.k), dv = zeros_like(c.v);
    const auto loss = [&] {
      attention(s, {c.q, c.k, c.v}, c.o, c.lse);
      return dot(c.o, dy);
    };
    loss();
    attention_backward(s, {c.q, c.k, c.v}, c.o, c.lse, dy, {dq, dk, dv});
    expect_gradient("v", c.v, dv, loss);
    if (s.S == 1) continue;  // one key: its weight is 1 whatever q and k are
    expect_gradient("q", c.q, dq, loss, 2e-3);
    expect_gradient("k", c.k, dk, loss, 2e-3);
  }
}

}  // namespace
}  // namespace crumb::quant::train

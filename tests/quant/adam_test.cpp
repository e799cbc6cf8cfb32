#include "quant/train/adam.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/quant/weights.h"

namespace crumb::quant::train {
namespace {

using Floats = std::vector<float>;

struct State {
  Floats w, mean, square;
};
State start(int64_t n) {
  const Floats w = random_weights(n, 1, 1.0f);
  return {w, Floats(w.size()), Floats(w.size())};
}

TEST(Adam, IsTheFormulaInDouble) {
  const AdamOptions options = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-6, .decay = 0.1};
  State s = start(50);
  std::vector<double> w(s.w.begin(), s.w.end()), m(w.size()), v(w.size());
  for (int64_t t = 1; t <= 20; ++t) {
    const Floats g = random_weights(50, 10 + static_cast<uint64_t>(t), 1.0f);
    const double rate = 0.01 * static_cast<double>(t);
    adam(adam_step(options, t, rate), g, 0.5f, s.w, s.mean, s.square);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double x = 0.5 * g[i];
      m[i] = 0.9 * m[i] + 0.1 * x;
      v[i] = 0.95 * v[i] + 0.05 * x * x;
      const double mean = m[i] / (1 - std::pow(0.9, t)), square = v[i] / (1 - std::pow(0.95, t));
      w[i] -= rate * (mean / (std::sqrt(square) + 1e-6) + 0.1 * w[i]);
      ASSERT_NEAR(s.w[i], w[i], 2e-5) << "step " << t << ", element " << i;
    }
  }
}

TEST(Adam, DoesNotDependOnHowSpansAreCut) {
  State whole = start(103), parts = whole;
  for (int64_t t = 1; t <= 3; ++t) {
    const AdamStep step = adam_step({}, t, 0.1);
    const Floats g = random_weights(103, static_cast<uint64_t>(t), 1.0f);
    adam(step, g, 1.0f, whole.w, whole.mean, whole.square);
    for (std::size_t at = 0; at < 103; at += 7) {
      const std::size_t n = std::min<std::size_t>(7, 103 - at);
      adam(step, std::span(g).subspan(at, n), 1.0f, std::span(parts.w).subspan(at, n),
           std::span(parts.mean).subspan(at, n), std::span(parts.square).subspan(at, n));
    }
  }
  EXPECT_EQ(parts.w, whole.w);
  EXPECT_EQ(parts.mean, whole.mean);
  EXPECT_EQ(parts.square, whole.square);
}

TEST(Adam, CosineSchedule) {
  EXPECT_EQ(cosine_schedule(1, 10, 0, 0), 1);
  EXPECT_NEAR(cosine_schedule(6, 10, 0, 0.2), 0.6, 1e-12);  // half way
  EXPECT_NEAR(cosine_schedule(11, 10, 0, 0.2), 0.2, 1e-12);
  EXPECT_NEAR(cosine_schedule(1, 20, 4, 0), 0.2, 1e-12);
  EXPECT_NEAR(cosine_schedule(4, 20, 4, 0), 0.8, 1e-12);
  EXPECT_EQ(cosine_schedule(5, 20, 4, 0), 1);
  for (int64_t t = 6; t <= 20; ++t)
    EXPECT_LT(cosine_schedule(t, 20, 4, 0), cosine_schedule(t - 1, 20, 4, 0));
  EXPECT_GT(cosine_schedule(20, 20, 4, 0), 0);
}

TEST(Adam, ClipsToANorm) {
  const Floats g = random_weights(1001, 3, 1.0f);
  double sum = 0;
  for (const float x : g) sum += static_cast<double>(x) * x;
  EXPECT_NEAR(square_sum(g), sum, 1e-9 * sum);
  EXPECT_EQ(clip_factor(0.25, 1.0), 1.0);
  EXPECT_EQ(clip_factor(0, 1.0), 1.0);
  EXPECT_NEAR(clip_factor(16, 1.0), 0.25, 1e-12);
}

}  // namespace
}  // namespace crumb::quant::train

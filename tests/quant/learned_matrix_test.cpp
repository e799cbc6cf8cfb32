// What a step of learning moves is the gradient of a loss in what is learned, by finite
// differences.
#include "quant/learned_matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernels/float16.h"
#include "quant/rotation.h"
#include "quant/rtn.h"
#include "quant/scale_search.h"
#include "tests/quant/weights.h"

namespace crumb::quant {
namespace {

using Floats = std::vector<float>;
constexpr int64_t N = 6, K = 64;
constexpr float kMoved = 1e-2f;  // of a gradient, by the step below

// Adam far below its eps is plain descent: w -= kMoved g.
constexpr train::AdamStep kDescent = {.rate = kMoved * 1e6f,
                                      .decay = 0,
                                      .beta1 = 0,
                                      .beta2 = 0,
                                      .mean_factor = 1,
                                      .square_factor = 1,
                                      .eps = 1e6f};
constexpr train::AdamStep kNothing = {.rate = 0, .mean_factor = 1, .square_factor = 1, .eps = 1};

// L = sum c o W, W the plain weights of masters v: linear, so that straight-through gradients are
// those of the masters themselves.
double loss(const Floats& c, Floats v, const models::Rotation& rotation) {
  if (rotation.hadamard > 0) unrotate_rows(v, K, rotation, 1);
  return std::inner_product(
      v.begin(), v.end(), c.begin(), 0.0, std::plus<>(),
      [](float a, float b) { return static_cast<double>(a) * static_cast<double>(b); });
}

struct Step {
  Floats before, after, c;  // masters, and the loss's factors
  Rounded start;
};

Step one_step(LearnedForm form, const models::Rotation& rotation) {
  const auto w = random_weights(N * K, 5, 0.1f);
  Floats turned = w;
  if (rotation.hadamard > 0) rotate_rows(turned, K, rotation, 1);
  Step step;
  // 8 bits that cover every weight: nothing is clipped.
  step.start = round_nearest(turned, N, K, {}, {8, 0, kernels::Grid::kAsym, ScaleRule::kAbsMax}, 1);
  LearnedMatrix matrix(w, rotation, step.start, form, 1);
  step.before.assign(matrix.master().begin(), matrix.master().end());
  step.c = random_weights(N * K, 6, 1.0f);
  Floats plain(w.size());
  matrix.forward(plain, 1);
  Floats G = step.c;
  matrix.backward(G, kDescent, kNothing, 2);
  step.after.assign(matrix.master().begin(), matrix.master().end());
  return step;
}

// dL/dx at 0 of masters v(x).
template <class Masters>
double slope(const Step& step, const models::Rotation& rotation, const Masters& masters) {
  constexpr double kStep = 0.02;
  return (loss(step.c, masters(kStep), rotation) - loss(step.c, masters(-kStep), rotation)) /
         (2 * kStep);
}

class LearnedMatrixTest : public testing::TestWithParam<int64_t> {
 protected:
  const models::Rotation rotation{GetParam(), GetParam() == 0 ? 0u : 3u};
};

TEST_P(LearnedMatrixTest, DivisorsMoveAgainstTheirGradients) {
  const Step step = one_step(LearnedForm::kDivisor, rotation);
  const auto divided = [&](std::size_t first, std::size_t count) {
    return slope(step, rotation, [&](double x) {
      Floats v = step.before;
      for (std::size_t i = first; i < first + count; ++i) v[i] *= static_cast<float>(std::exp(-x));
      return v;
    });
  };
  for (std::size_t n = 0; n < N; ++n) {
    const double row = divided(n * K, K);
    for (std::size_t k = 0; k < K; k += 7) {
      const std::size_t i = n * K + k;
      // v = v0 exp(-S2 - s3), S2 = -kMoved dL/dS2, s3 = -kMoved dL/ds3
      const double moved = std::log(static_cast<double>(step.after[i]) / step.before[i]) / kMoved;
      const double expected = divided(i, 1) + row;
      EXPECT_NEAR(moved, expected, 5e-3 * (1 + std::abs(expected))) << n << ", " << k;
    }
  }
}

TEST_P(LearnedMatrixTest, MastersMoveAgainstTheirGradientsInStepsOfTheGrid) {
  const Step step = one_step(LearnedForm::kMaster, rotation);
  for (std::size_t i = 0; i < step.before.size(); i += 5) {
    const double scale = kernels::f16_to_f32(step.start.scales[i / K]);
    const double gradient = slope(step, rotation, [&](double x) {
      Floats v = step.before;
      v[i] += static_cast<float>(x);
      return v;
    });
    const double moved = static_cast<double>(step.before[i]) - static_cast<double>(step.after[i]);
    EXPECT_NEAR(moved / (kMoved * scale), gradient, 2e-2 * (1 + std::abs(gradient))) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Rotations, LearnedMatrixTest, testing::Values(0, 32));

}  // namespace
}  // namespace crumb::quant

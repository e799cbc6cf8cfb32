#include "quant/sequential.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <numeric>

#include "models/errors.h"
#include "quant/block_stages.h"
#include "quant/moments.h"
#include "quant/shift.h"
#include "tests/quant/calibrated_job.h"
#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

using test_jobs::calibrated;
using test_jobs::file_bytes;
using test_jobs::rotated_ldlq;

QuantizeOptions in_sequence(int bits, const models::SourceModel& source, TokenWeights weights,
                            double shift) {
  QuantizeOptions options = calibrated(rotated_ldlq(bits), source);
  options.fit = {true, weights, shift, shift};
  return options;
}

TEST(BlockStages, AreTheBlockBitForBit) {
  const auto source = models::tiny_model({});
  const auto& c = source.config;
  constexpr int64_t S = 12, count = 3;
  const train::BlockContext context(c, S);
  const train::BlockWeights weights = train::read_block(source, 1);
  const std::vector<float> x = random_weights(count * S * c.dim, 3, 1.0f);
  BlockStage stage;
  std::vector<std::vector<float>> inputs;
  for (const train::LinearInput input : train::kLinearInputs) {
    enter_stage(context, weights, x, input, 2, &stage);
    inputs.push_back(stage.in);
  }
  const std::vector<float> out = leave_block(context, weights, 2, stage);
  train::BlockActivations activations(c, S);
  const auto size = static_cast<std::size_t>(S * c.dim);
  std::vector<float> y(size);
  for (std::size_t i = 0; i < count; ++i) {
    train::block_forward(context, weights, std::span(x).subspan(i * size, size), activations, y);
    EXPECT_TRUE(std::equal(y.begin(), y.end(), out.begin() + static_cast<int64_t>(i * size)));
    for (const train::LinearInput input : train::kLinearInputs) {
      const auto expected = train::linear_input(activations, input);
      const auto& found = inputs[static_cast<std::size_t>(input)];
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(),
                             found.begin() + static_cast<int64_t>(i * expected.size())));
    }
  }
}

TEST(CrossMoments, AreTheObviousSums) {
  constexpr int64_t tokens = 1100, Ka = 200, Kb = 31;
  const auto a = random_weights(tokens * Ka, 1, 1.0f), b = random_weights(tokens * Kb, 2, 1.0f);
  const auto found = cross_moments(a, Ka, b, Kb, 1);
  EXPECT_EQ(cross_moments(a, Ka, b, Kb, 3), found);
  for (const auto& [i, j] : {std::pair<int64_t, int64_t>{0, 0}, {199, 30}, {192, 7}, {5, 30}}) {
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t)
      sum += static_cast<double>(a[static_cast<std::size_t>(t * Ka + i)]) *
             b[static_cast<std::size_t>(t * Kb + j)];
    EXPECT_NEAR(found[static_cast<std::size_t>(i * Kb + j)], sum / tokens, 1e-5);
  }
}

// (W* - W) (H + damping I) = a W C + b R, the normal equations, as they are written.
TEST(ShiftedTarget, SolvesTheNormalEquations) {
  constexpr int64_t N = 70, K = 48;
  const auto w = random_weights(N * K, 4, 1.0f);
  const auto H = random_hessian(K, 6, 5);
  const auto random = [](int64_t n, uint64_t seed) {
    const auto floats = random_weights(n, seed, 0.2f);
    return std::vector<double>(floats.begin(), floats.end());
  };
  const auto C = random(K * K, 6), R = random(N * K, 7);
  const BlockFit fit{true, TokenWeights::kEqual, 0.7, 0.4};
  const ShiftFactor factor = shift_factor(H, K, "x", 1);
  EXPECT_FALSE(factor.raised());
  const auto target = shifted_target(w, factor, {C, R}, fit, 1);
  EXPECT_EQ(shifted_target(w, shift_factor(H, K, "x", 3), {C, R}, fit, 3), target);
  double mean = 0;
  for (int64_t k = 0; k < K; ++k) mean += H[static_cast<std::size_t>(k * K + k)] / K;
  for (int64_t n = 0; n < N; n += 23)
    for (int64_t k = 0; k < K; k += 5) {
      double left = 0, right = fit.residual * R[static_cast<std::size_t>(n * K + k)];
      for (int64_t j = 0; j < K; ++j) {
        const auto nj = static_cast<std::size_t>(n * K + j),
                   jk = static_cast<std::size_t>(j * K + k);
        const double h = H[jk] + (j == k ? kShiftDamping * mean : 0);
        left += (static_cast<double>(target[nj]) - static_cast<double>(w[nj])) * h;
        right += fit.shift * static_cast<double>(w[nj]) * C[jk];
      }
      EXPECT_NEAR(left, right, 1e-4 * (1 + std::abs(right)));
    }
  const std::vector<double> none(static_cast<std::size_t>(K * K));
  EXPECT_EQ(shifted_target(w, shift_factor(none, K, "x", 1), {C, R}, fit, 1), w);
}

// An H with an eigenvalue of -0.05 of the mean needs a rung above; what is not a second moment is
// refused by name.
TEST(ShiftedTarget, DampsWhatIsNotPositiveAndSaysSo) {
  constexpr int64_t K = 4;
  std::vector<double> H(K * K);
  for (std::size_t k = 0; k < K; ++k) H[k * K + k] = 1;
  H[1] = H[K] = 1.05;  // of [[1, 1.05], [1.05, 1]]
  const ShiftFactor factor = shift_factor(H, K, "x", 1);
  EXPECT_DOUBLE_EQ(factor.damping, 0.1);
  EXPECT_TRUE(factor.raised());
  const std::vector<float> w(K, 1.0f), same(w);
  const std::vector<double> C(K * K, 0.5);
  EXPECT_NE(shifted_target(w, factor, {C, {}}, {true, TokenWeights::kEqual, 1, 0}, 1), same);
  H[1] = H[K] = 5;
  EXPECT_THROW(shift_factor(H, K, "block 3", 1), Error);
  H[0] = std::nan("");
  EXPECT_THROW(shift_factor(H, K, "block 3", 1), Error);
}

TEST(TokenWeights, AreOfMeanOne) {
  const std::vector<float> residual = {1, 1, 3, 3, 0, 0};  // three tokens of two
  const auto relative = token_weights(TokenWeights::kRelative, residual, 2, {}, 3);
  EXPECT_FLOAT_EQ(relative[0], 9 * relative[1]);
  EXPECT_EQ(relative[2], 0);
  EXPECT_NEAR(std::accumulate(relative.begin(), relative.end(), 0.0), 3, 1e-6);
  const std::vector<float> squares = {4, 1, 0};
  const auto gradient = token_weights(TokenWeights::kGradient, {}, 2, squares, 3);
  EXPECT_EQ(gradient, (std::vector<float>{2, 1, 0}));
  for (const auto& [name, kind] : kTokenWeights) {
    const std::vector<float> zero(3);
    EXPECT_EQ(token_weights(kind, {}, 2, zero, 3), (std::vector<float>{1, 1, 1})) << name;
  }
}

TEST(TokenWeights, GradientsAreThoseOfTheWalk) {
  const auto source = models::tiny_model({});
  CalibrationWindows windows{16, test::some_ids(11 * 16, source.config.vocab)};
  const TokenGradients one = token_gradients(source, windows, 1, {});
  EXPECT_EQ(token_gradients(source, windows, 3, {}), one);
  for (const auto& [name, squares] : one) EXPECT_EQ(squares.size(), windows.ids.size()) << name;
}

class Sequential : public testing::Test {
 protected:
  test::TempDir dir_;
  models::SourceModel source_ = models::tiny_model({});
};

TEST_F(Sequential, BytesDependNeitherOnThreadsNorOnInterruption) {
  for (const auto& [name, weights] : kTokenWeights) {
    QuantizeOptions options = in_sequence(3, source_, weights, 1);
    options.linear.refits = 1;
    const std::string path = dir_.file("m.crumb");
    quantize(source_, options, path, {});
    const std::string whole = file_bytes(path);
    options.threads = 3;
    int stops = 0;
    for (int stop = 1;; stop += 2) {
      int calls = 0;
      QuantizeHooks hooks;
      hooks.progress = [&](const Progress&) { return ++calls < stop; };
      try {
        quantize(source_, options, path, hooks);
        break;
      } catch (const Interrupted&) {
        ++stops;
      }
    }
    EXPECT_GT(stops, 2) << name;
    EXPECT_TRUE(file_bytes(path) == whole) << name;
  }
}

TEST_F(Sequential, EqualisedJobsGoOnTheSameToo) {
  QuantizeOptions options = in_sequence(3, source_, TokenWeights::kRelative, 1);
  options.equalise.method = Equalise::kSinkhorn;
  options.equalise.sinkhorn.tile = 32;
  const std::string path = dir_.file("m.crumb");
  quantize(source_, options, path, {});
  const std::string whole = file_bytes(path);
  const auto first_block_only = [&] {
    for (int stop = 1;; ++stop) {
      int calls = 0;
      QuantizeHooks hooks;
      hooks.progress = [&](const Progress&) { return ++calls < stop; };
      try {
        quantize(source_, options, path, hooks);
        FAIL() << "never stopped after a block";
      } catch (const Interrupted&) {
        if (!std::filesystem::is_empty(path + ".journal")) return;
      }
    }
  };
  first_block_only();
  quantize(source_, options, path, {});
  EXPECT_TRUE(file_bytes(path) == whole);
}

// What the second block hands on, against the full-precision model's: shifts make up for a part.
TEST_F(Sequential, ShiftsBringTheStreamNearer) {
  const auto& c = source_.config;
  const auto error_of = [&](double shift) {
    QuantizeOptions options = in_sequence(3, source_, TokenWeights::kEqual, shift);
    Calibrator calibrator(source_, options.calibration->windows, {}, {});
    double error = 0;
    while (!calibrator.done()) {
      BlockAtWork work{c.layers, c, {}, {}, {}, 2};
      work.layer = calibrator.next_block().layer;
      work.weights = train::read_block(source_, work.layer);
      StreamsAfter after = round_in_sequence(
          options, {}, {calibrator.full_stream(), calibrator.prefix_stream()}, work);
      const train::BlockContext context(c, options.calibration->windows.S);
      const auto stored = restore_block(c, work.stored, 2);
      calibrator.advance(stored);
      if (calibrator.done()) break;
      const auto full = calibrator.full_stream(), prefix = calibrator.prefix_stream();
      EXPECT_TRUE(std::equal(prefix.begin(), prefix.end(), after.prefix.begin()));
      for (std::size_t i = 0; i < full.size(); ++i)
        error += std::pow(static_cast<double>(full[i]) - static_cast<double>(prefix[i]), 2);
    }
    return error;
  };
  const double without = error_of(0);
  EXPECT_LT(error_of(1), 0.97 * without);
}

}  // namespace
}  // namespace crumb::quant

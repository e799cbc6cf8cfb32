// Block reconstruction of the tiny model.
#include "quant/reconstruct.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "models/errors.h"
#include "models/tiny_model.h"
#include "quant/banded.h"
#include "quant/rotation.h"
#include "quant/scale_search.h"
#include "tests/quant/weights.h"

namespace crumb::quant {
namespace {

using train::BlockWeights;
using Floats = std::vector<float>;

constexpr int64_t kWindow = 40, kWindows = 9, kKept = 2;

// [T, D] of few directions, as hidden states are: where inputs are white, nearest is the best.
Floats correlated(int64_t T, int64_t D) {
  constexpr int64_t kRank = 6;
  const auto z = random_weights(T * kRank, 1, 1.0f), a = random_weights(kRank * D, 3, 1.0f);
  Floats x = random_weights(T * D, 4, 0.1f);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t r = 0; r < kRank; ++r)
      for (int64_t d = 0; d < D; ++d)
        x[static_cast<std::size_t>(t * D + d)] +=
            z[static_cast<std::size_t>(t * kRank + r)] * a[static_cast<std::size_t>(r * D + d)];
  return x;
}

class ReconstructTest : public testing::Test {
 protected:
  ReconstructTest()
      : source(models::tiny_model({})),
        context(source.config, kWindow),
        weights(train::read_block(source, 1)),
        full(correlated(kWindows * kWindow, source.config.dim)),
        prefix(full) {
    const auto noise = random_weights(std::ssize(full), 2, 0.05f);
    for (std::size_t i = 0; i < full.size(); ++i) prefix[i] += noise[i];
  }

  // All seven matrices to the nearest of 3 bits, rotated or not.
  std::vector<MatrixCodes> nearest(int64_t hadamard, kernels::Grid grid = kernels::Grid::kSeq) {
    using W = BlockWeights;
    const models::ModelConfig& c = source.config;
    std::vector<MatrixCodes> matrices;
    for (const auto member : {&W::q, &W::k, &W::v, &W::o, &W::gate, &W::up, &W::down}) {
      const int64_t K = member == &W::down ? c.ffn : member == &W::o ? c.heads * c.head_dim : c.dim;
      Floats w = weights.*member;
      const models::Rotation rotation{hadamard, 5};
      if (hadamard > 0) rotate_rows(w, K, rotation, 1);
      matrices.push_back(
          {member,
           rotation,
           {round_nearest(w, std::ssize(w) / K, K, {}, {3, 0, grid, ScaleRule::kMse}, 1)}});
    }
    return matrices;
  }
  static ReconstructOptions options(Reconstruction method, int threads = 1) {
    ReconstructOptions o;
    o.shift = 1;  // the target that loss_of() has if nothing else is said
    o.method = method;
    o.epochs = 4;
    o.kept_back = kKept;
    o.threads = threads;
    return o;
  }
  // The relative loss of matrices on the windows kept back, as it is written.
  double loss_of(const std::vector<MatrixCodes>& matrices, double shift = 1) {
    BlockWeights quantized = weights;
    for (const MatrixCodes& matrix : matrices) {
      Floats w = dequantize(std::span(matrix.bands));
      if (matrix.rotation.hadamard > 0)
        unrotate_rows(w, matrix.bands.front().K, matrix.rotation, 1);
      quantized.*matrix.member = w;
    }
    const auto D = static_cast<std::size_t>(source.config.dim), size = kWindow * D;
    train::BlockActivations a(source.config, kWindow);
    Floats target(size), behind(size), y(size);
    double sum = 0;
    for (std::size_t i = kWindows - kKept; i < kWindows; ++i) {
      train::block_forward(context, weights, std::span(full).subspan(i * size, size), a, target);
      train::block_forward(context, weights, std::span(prefix).subspan(i * size, size), a, behind);
      for (std::size_t k = 0; k < size; ++k)
        target[k] = static_cast<float>(shift * target[k] + (1 - shift) * behind[k]);
      train::block_forward(context, quantized, std::span(prefix).subspan(i * size, size), a, y);
      for (std::size_t t = 0; t < kWindow; ++t) {
        double error = 0, square = 0;
        for (std::size_t d = t * D; d < (t + 1) * D; ++d) {
          error +=
              (static_cast<double>(y[d]) - target[d]) * (static_cast<double>(y[d]) - target[d]);
          square += static_cast<double>(target[d]) * target[d];
        }
        sum += error / square;
      }
    }
    return sum / (kKept * kWindow);
  }

  models::SourceModel source;
  train::BlockContext context;
  BlockWeights weights;
  Floats full, prefix;
};

constexpr Reconstruction kMethods[] = {Reconstruction::kFlexRound, Reconstruction::kLrq,
                                       Reconstruction::kBlockAp};

TEST_F(ReconstructTest, LowersTheLossThatItReports) {
  for (const auto method : kMethods)
    for (const int64_t hadamard : {0, 32}) {
      const std::string name =
          std::string(name_of(kReconstructions, method)) + ", Hadamard " + std::to_string(hadamard);
      auto matrices = nearest(hadamard);
      const auto start = matrices;
      const auto report =
          reconstruct(context, weights, {full, prefix}, 1, options(method), matrices);
      EXPECT_NEAR(report.loss_start, loss_of(start), 1e-5 * report.loss_start) << name;
      EXPECT_NEAR(report.loss_end, loss_of(matrices), 1e-5 * report.loss_end) << name;
      EXPECT_TRUE(report.improved) << name;
      EXPECT_LT(report.loss_end, 0.8 * report.loss_start) << name;
      EXPECT_LT(report.mse_end, 0.8 * report.mse_start) << name;
      EXPECT_LT(report.train_end, report.train_start) << name;
      EXPECT_EQ(report.steps, 4 * 4) << name;  // 7 windows by twos
      int64_t changed = 0;
      for (std::size_t m = 0; m < matrices.size(); ++m)
        for (std::size_t i = 0; i < matrices[m].bands.front().codes.size(); ++i)
          changed += matrices[m].bands.front().codes[i] != start[m].bands.front().codes[i] ? 1 : 0;
      EXPECT_EQ(changed, report.changed) << name;
      EXPECT_GT(changed, 0) << name;
    }
}

TEST_F(ReconstructTest, MakesUpForAPartOfWhatItsInputsHaveLost) {
  for (const double shift : {0.0, 0.5}) {
    auto matrices = nearest(32);
    const double before = loss_of(matrices, shift);
    EXPECT_GT(std::abs(before / loss_of(matrices, 1) - 1), 1e-3) << shift;
    auto chosen = options(Reconstruction::kBlockAp);
    chosen.shift = shift;
    const auto report = reconstruct(context, weights, {full, prefix}, 1, chosen, matrices);
    EXPECT_NEAR(report.loss_start, before, 1e-4 * before) << shift;
    EXPECT_NEAR(report.loss_end, loss_of(matrices, shift), 1e-4 * report.loss_end) << shift;
    EXPECT_LT(report.loss_end, 0.9 * report.loss_start) << shift;
  }
}

// Bands of 3 and of 4 bits: each keeps its width, and all are learned together.
TEST_F(ReconstructTest, LearnsBandsOfDifferentWidths) {
  for (const auto method : kMethods) {
    auto matrices = nearest(32);
    for (MatrixCodes& matrix : matrices) {
      Floats w = weights.*matrix.member;
      const int64_t K = matrix.bands.front().K, N = std::ssize(w) / K;
      rotate_rows(w, K, matrix.rotation, 1);
      const auto part = [&](int64_t first, int64_t rows, int bits) {
        return round_nearest(std::span(w).subspan(static_cast<std::size_t>(first * K),
                                                  static_cast<std::size_t>(rows * K)),
                             rows, K, {}, {bits, 0, kernels::Grid::kSeq, ScaleRule::kMse}, 1);
      };
      if (N > 32) matrix.bands = {part(0, 32, 4), part(32, N - 32, 3)};
    }
    const auto start = matrices;
    const auto report = reconstruct(context, weights, {full, prefix}, 1, options(method), matrices);
    EXPECT_NEAR(report.loss_start, loss_of(start), 1e-5 * report.loss_start);
    EXPECT_NEAR(report.loss_end, loss_of(matrices), 1e-5 * report.loss_end);
    EXPECT_TRUE(report.improved);
    for (std::size_t m = 0; m < matrices.size(); ++m)
      for (std::size_t b = 0; b < start[m].bands.size(); ++b)
        EXPECT_EQ(matrices[m].bands[b].bits, start[m].bands[b].bits);
  }
}

TEST_F(ReconstructTest, LearnsOnEveryGrid) {
  for (const auto grid : {kernels::Grid::kLsq, kernels::Grid::kAsym}) {
    auto matrices = nearest(0, grid);
    const auto zeros = matrices[0].bands.front().zeros;
    const auto report = reconstruct(context, weights, {full, prefix}, 1,
                                    options(Reconstruction::kBlockAp), matrices);
    EXPECT_LT(report.loss_end, 0.8 * report.loss_start) << static_cast<int>(grid);
    EXPECT_EQ(matrices[0].bands.front().zeros, zeros);
  }
}

TEST_F(ReconstructTest, DoesNotDependOnTheNumberOfThreads) {
  for (const auto method : kMethods) {
    auto one = nearest(32), three = one;
    auto wide = options(method, 3);
    auto narrow = options(method, 1);
    wide.batch = narrow.batch = 3;
    const auto a = reconstruct(context, weights, {full, prefix}, 1, narrow, one);
    const auto b = reconstruct(context, weights, {full, prefix}, 1, wide, three);
    EXPECT_EQ(a.loss_end, b.loss_end);
    EXPECT_EQ(a.train_end, b.train_end);
    for (std::size_t m = 0; m < one.size(); ++m) {
      EXPECT_EQ(one[m].bands.front().codes, three[m].bands.front().codes);
      EXPECT_EQ(one[m].bands.front().scales, three[m].bands.front().scales);
    }
  }
}

TEST_F(ReconstructTest, KeepsTheStartIfLearningMakesItWorse) {
  auto matrices = nearest(0);
  const auto start = matrices;
  auto wild = options(Reconstruction::kBlockAp);
  wild.weight_rate = 3;  // steps of the grid
  const auto report = reconstruct(context, weights, {full, prefix}, 1, wild, matrices);
  EXPECT_FALSE(report.improved);
  EXPECT_GT(report.loss_end, report.loss_start);
  for (std::size_t m = 0; m < start.size(); ++m) {
    EXPECT_EQ(matrices[m].bands.front().codes, start[m].bands.front().codes);
    EXPECT_EQ(matrices[m].bands.front().scales, start[m].bands.front().scales);
  }
}

TEST_F(ReconstructTest, AnInterruptedRunChangesNothing) {
  auto matrices = nearest(0);
  const auto start = matrices;
  int64_t calls = 0;
  const auto progress = [&](const Progress& p) {
    EXPECT_EQ(p.stage, "reconstruct");
    EXPECT_EQ(p.item, "block 1");
    return ++calls < 6;
  };
  EXPECT_THROW(reconstruct(context, weights, {full, prefix}, 1, options(Reconstruction::kFlexRound),
                           matrices, progress),
               Interrupted);
  EXPECT_EQ(calls, 6);
  EXPECT_EQ(matrices[3].bands.front().codes, start[3].bands.front().codes);
}

TEST_F(ReconstructTest, RefusesTooFewWindowsAndLossesThatAreNotFinite) {
  auto matrices = nearest(0);
  auto few = options(Reconstruction::kBlockAp);
  few.kept_back = kWindows;
  try {
    reconstruct(context, weights, {full, prefix}, 1, few, matrices);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_THAT(error.what(), testing::HasSubstr("9 kept back, found 9"));
  }
  prefix[100] = std::numeric_limits<float>::infinity();
  try {
    reconstruct(context, weights, {full, prefix}, 1, options(Reconstruction::kBlockAp), matrices);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNumeric);
    EXPECT_THAT(error.what(), testing::HasSubstr("block 1"));
  }
}

}  // namespace
}  // namespace crumb::quant

#include "quant/rtn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/float16.h"
#include "kernels/pack.h"
#include "models/errors.h"
#include "quant/report.h"
#include "tests/quant/weights.h"

namespace crumb::quant {
namespace {

using kernels::Grid;
using testing::HasSubstr;

struct Case {
  int64_t N, K, group;
  int bits;
  Grid grid;
  int64_t hadamard;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int bits : {2, 3, 4, 8})
    for (const Grid grid : {Grid::kSeq, Grid::kLsq, Grid::kAsym}) {
      all.push_back({1, 1, 0, bits, grid, 0});
      all.push_back({33, 100, 0, bits, grid, 0});
      all.push_back({32, 576, 128, bits, grid, 0});  // the last group has 64 columns
      all.push_back({65, 192, 64, bits, grid, 64});
      all.push_back({31, 96, 32, bits, grid, 32});
      all.push_back({40, 512, 0, bits, grid, 512});
    }
  return all;
}

RtnOptions options_of(const Case& c, ScaleSearch search = ScaleSearch::kMse) {
  RtnOptions options;
  options.bits = c.bits;
  options.group = c.group;
  options.grid = c.grid;
  options.search = search;
  options.rotation = {c.hadamard, c.hadamard == 0 ? uint64_t{0} : uint64_t{42}};
  return options;
}

// The rotation as a matrix product: entry (i, j) of Sylvester's Hadamard matrix is -1 to the power
// of the number of ones in i & j.
std::vector<double> rotated_slowly(std::span<const float> row, const models::Rotation& rotation) {
  const auto K = std::ssize(row);
  const auto signs = models::rotation_signs(rotation, K);
  std::vector<double> out(row.size());
  for (int64_t i = 0; i < K; ++i)
    for (int64_t j = i / rotation.hadamard * rotation.hadamard, end = j + rotation.hadamard;
         j < end; ++j) {
      const int ones = __builtin_popcountll(static_cast<uint64_t>(i & j & (rotation.hadamard - 1)));
      const double sign = ones % 2 == 0 ? 1 : -1;
      out[static_cast<std::size_t>(i)] += sign * signs[static_cast<std::size_t>(j)] *
                                          row[static_cast<std::size_t>(j)] /
                                          std::sqrt(static_cast<double>(rotation.hadamard));
    }
  return out;
}

TEST(Rtn, AgreesWithTheObviousLoop) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(testing::Message() << c.N << "x" << c.K << " g" << c.group << " bits " << c.bits
                                    << " grid " << static_cast<int>(c.grid) << " R" << c.hadamard);
    const auto w = random_weights(c.N * c.K, 9);
    const RtnOptions options = options_of(c);
    const models::PackedData packed = rtn(w, c.N, c.K, options, "w");
    const int64_t group = c.group == 0 ? c.K : c.group;
    EXPECT_EQ(packed.group, group);
    const kernels::PackedMatrix matrix = view(packed);
    for (int64_t n = 0; n < c.N; ++n) {
      std::vector<float> row(w.begin() + n * c.K, w.begin() + (n + 1) * c.K);
      if (c.hadamard != 0) {
        const auto slow = rotated_slowly(row, options.rotation);
        rotate_row(row, options.rotation, models::rotation_signs(options.rotation, c.K));
        for (std::size_t k = 0; k < row.size(); ++k) ASSERT_NEAR(row[k], slow[k], 1e-5);
      }
      for (int64_t k0 = 0; k0 < c.K; k0 += group) {
        const auto part = std::span<const float>(row).subspan(
            static_cast<std::size_t>(k0), static_cast<std::size_t>(std::min(group, c.K - k0)));
        const GroupFit fit = fit_group(part, c.bits, c.grid, options.search);
        std::vector<float> restored(static_cast<std::size_t>(c.K));
        kernels::dequantize_row(matrix, n, restored);
        for (std::size_t i = 0; i < part.size(); ++i) {
          std::vector<uint8_t> code(1);
          round_group(part.subspan(i, 1), fit, c.bits, code);
          const int64_t k = k0 + static_cast<int64_t>(i);
          ASSERT_EQ(kernels::unpack_code(matrix, n, k), code[0]) << n << "," << k;
          ASSERT_EQ(restored[static_cast<std::size_t>(k)],
                    fit.scale * (code[0] - 0.5f * fit.zero2));
        }
      }
    }
  }
}

TEST(Rtn, DoesNotDependOnTheNumberOfThreads) {
  for (const Case& c : cases()) {
    const auto w = random_weights(c.N * c.K, 3);
    const auto one = rtn(w, c.N, c.K, options_of(c), "w", 1);
    for (const int threads : {2, 3, 64}) {
      const auto many = rtn(w, c.N, c.K, options_of(c), "w", threads);
      EXPECT_EQ(many.codes, one.codes);
      EXPECT_EQ(many.scales, one.scales);
      EXPECT_EQ(many.zeros, one.zeros);
      const Distortion a = measure(w, one, 1);
      const Distortion b = measure(w, many, threads);
      EXPECT_EQ(a.mse, b.mse);
      EXPECT_EQ(a.relative_error, b.relative_error);
    }
  }
}

TEST(Rtn, PaddingRowsHaveScaleZero) {
  const auto w = random_weights(33 * 64, 5);
  const auto packed = rtn(w, 33, 64, options_of({33, 64, 32, 4, Grid::kAsym, 0}), "w");
  ASSERT_EQ(packed.scales.size(), 2u * 2u * 32u);
  ASSERT_EQ(packed.zeros.size(), packed.scales.size());
  for (std::size_t g = 0; g < 2; ++g)
    for (std::size_t r = 1; r < 32; ++r) EXPECT_EQ(packed.scales[(2 + g) * 32 + r], 0);
}

TEST(Rtn, RotatedRowTimesRotatedInputIsTheOldProduct) {
  const models::Rotation rotation{64, 7};
  const auto signs = models::rotation_signs(rotation, 192);
  auto w = random_weights(192, 1);
  auto x = random_weights(192, 2);
  double before = 0;
  for (std::size_t k = 0; k < w.size(); ++k) before += static_cast<double>(w[k]) * x[k];
  rotate_row(w, rotation, signs);
  rotate_row(x, rotation, signs);
  double after = 0;
  for (std::size_t k = 0; k < w.size(); ++k) after += static_cast<double>(w[k]) * x[k];
  EXPECT_NEAR(before, after, 1e-4 * std::abs(before));
}

TEST(Rtn, MoreBitsAndTheSearchLowerTheError) {
  const auto w = random_weights(64 * 512, 11);
  for (const Grid grid : {Grid::kSeq, Grid::kLsq, Grid::kAsym}) {
    double last = 1;
    for (const int bits : {2, 3, 4, 8}) {
      const Case c = {64, 512, 64, bits, grid, 0};
      const double mse = measure(w, rtn(w, 64, 512, options_of(c), "w")).relative_error;
      const double absmax =
          measure(w, rtn(w, 64, 512, options_of(c, ScaleSearch::kAbsMax), "w")).relative_error;
      EXPECT_LE(mse, absmax);
      EXPECT_LT(mse, last);
      last = mse;
    }
    EXPECT_LT(last, 0.02);  // 256 levels, every 97th weight eight times as large
  }
}

TEST(Rtn, RotationSpreadsOutliers) {
  auto w = random_weights(64 * 512, 12, 0.01f);
  for (std::size_t i = 0; i < w.size(); i += 61) w[i] *= 50;
  const double plain =
      measure(w, rtn(w, 64, 512, options_of({64, 512, 0, 4, Grid::kSeq, 0}), "w")).relative_error;
  const double rotated =
      measure(w, rtn(w, 64, 512, options_of({64, 512, 0, 4, Grid::kSeq, 64}), "w")).relative_error;
  EXPECT_LT(rotated, plain);
}

TEST(Rtn, NotFiniteWeightsAreNamed) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    auto w = random_weights(40 * 64, 1);
    w[33 * 64 + 5] = bad;
    try {
      rtn(w, 40, 64, options_of({40, 64, 0, 4, Grid::kSeq, 64}), "model.layers.3.mlp.up_proj");
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kNumeric);
      EXPECT_THAT(e.what(), HasSubstr("model.layers.3.mlp.up_proj row 33, column 5"));
    }
  }
  // Finite alone, infinite once a block is added up.
  std::vector<float> w(32 * 64, std::numeric_limits<float>::max());
  EXPECT_THROW(rtn(w, 32, 64, options_of({32, 64, 0, 4, Grid::kSeq, 64}), "w"), Error);
}

TEST(Rtn, OptionsAMatrixCannotHaveAreNamed) {
  struct Bad {
    Case c;
    const char* message;
  };
  const Bad all[] = {
      {{4, 64, 64, 5, Grid::kSeq, 0}, "bits (w [4, 64]: expected 2, 3, 4 or 8, found 5)"},
      {{4, 64, 48, 4, Grid::kSeq, 0}, "found 48)"},
      {{4, 64, 128, 4, Grid::kSeq, 0}, "group (w [4, 64]"},
      {{4, 64, -32, 4, Grid::kSeq, 0}, "found -32)"},
      {{4, 96, 0, 4, Grid::kSeq, 64}, "Hadamard block (w [4, 96]"},
      {{4, 96, 0, 4, Grid::kSeq, 96}, "found 96)"},
      {{4, 64, 0, 4, Grid::kSeq, 16}, "found 16)"},
      {{4, 1024, 0, 4, Grid::kSeq, 1024}, "found 1024)"},
      {{4, 64, 0, 4, Grid::kSeq, -64}, "found -64)"},
      {{4, 32800, 0, 4, Grid::kSeq, 0}, "expected 1..32768, found 32800)"},
  };
  for (const Bad& bad : all) {
    try {
      validate(options_of(bad.c), bad.c.N, bad.c.K, "w");
      FAIL() << "no error, expected " << bad.message;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kUsage);
      EXPECT_THAT(e.what(), HasSubstr(bad.message));
    }
  }
}

}  // namespace
}  // namespace crumb::quant

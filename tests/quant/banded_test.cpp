#include "quant/banded.h"

#include <gtest/gtest.h>

#include "kernels/layout.h"
#include "quant/ldlq.h"
#include "quant/report.h"
#include "quant/rtn.h"
#include "quant/sensitivity.h"
#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

constexpr int64_t kRows = 150, kColumns = 96;  // five strips, the last of 22 rows

Factor test_factor(ColumnOrder order = ColumnOrder::kAscending) {
  return factor(random_hessian(kColumns, 24, 5, 3), kColumns, order, "H", 1);
}

std::vector<Rounded> ldlq_bands(std::span<const float> w, const Factor& f,
                                std::span<const models::Band> bands, LdlqOptions options,
                                int threads) {
  return round_bands(w, kRows, kColumns, bands,
                     [&](std::span<const float> rows, int64_t n, int bits) {
                       options.bits = bits;
                       return ldlq(rows, n, kColumns, f, options, threads);
                     });
}

TEST(Banded, EveryRowIsThatOfTheWholeMatrixAtItsWidth) {
  const auto w = random_weights(kRows * kColumns, 3, 0.1f);
  const Factor f = test_factor();
  const std::vector<models::Band> bands = {{1, 2}, {2, 4}, {1, 2}, {1, 3}};
  for (const int64_t group : {int64_t{0}, int64_t{32}})
    for (const kernels::Grid grid : {kernels::Grid::kSeq, kernels::Grid::kAsym})
      for (const int threads : {1, 3}) {
        LdlqOptions options;
        options.group = group;
        options.grid = grid;
        options.greedy_passes = 1;
        const auto parts = ldlq_bands(w, f, bands, options, threads);
        const models::PackedData packed = pack_bands(parts, {});
        EXPECT_EQ(packed.bands, bands);
        const auto views = band_views(packed);
        std::vector<float> row(kColumns);
        std::vector<float> expected(kColumns);
        for (int64_t n = 0; n < kRows; ++n) {
          const int64_t strip = n / kernels::kStripRows;
          options.bits = strip == 0 || strip == 3 ? 2 : strip == 4 ? 3 : 4;
          const Rounded one = ldlq(std::span(w).subspan(static_cast<std::size_t>(n * kColumns),
                                                        static_cast<std::size_t>(kColumns)),
                                   1, kColumns, f, options, 1);
          models::dequantize_row(views, n, row);
          EXPECT_EQ(row, dequantize(one)) << "row " << n;
        }
      }
}

TEST(Banded, ComesBackFromItsPacking) {
  const auto w = random_weights(kRows * kColumns, 3, 0.1f);
  const std::vector<models::Band> bands = {{1, 2}, {2, 4}, {1, 8}, {1, 3}};
  LdlqOptions options;
  options.group = 32;
  options.grid = kernels::Grid::kAsym;
  const auto parts = ldlq_bands(w, test_factor(), bands, options, 1);
  const auto back = unpack_bands(pack_bands(parts, {}));
  ASSERT_EQ(back.size(), parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(back[i].bits, parts[i].bits);
    EXPECT_EQ(back[i].codes, parts[i].codes);
    EXPECT_EQ(back[i].scales, parts[i].scales);
    EXPECT_EQ(back[i].zeros, parts[i].zeros);
  }
}

TEST(Banded, NeighboursOfOneWidthAreOneBand) {
  const auto w = random_weights(kRows * kColumns, 3, 0.1f);
  const Factor f = test_factor();
  LdlqOptions options;
  options.bits = 3;
  const std::vector<models::Band> bands = {{1, 3}, {3, 3}, {1, 3}};
  const models::PackedData packed = pack_bands(ldlq_bands(w, f, bands, options, 2), {});
  const models::PackedData whole = pack(ldlq(w, kRows, kColumns, f, options), {});
  EXPECT_TRUE(packed.bands.empty());
  EXPECT_EQ(packed.bits, 3);
  EXPECT_EQ(packed.codes, whole.codes);
  EXPECT_EQ(packed.scales, whole.scales);
  EXPECT_DOUBLE_EQ(measure(w, packed).mse, measure(w, whole).mse);
}

// The shares of rows and of columns are the proxy loss, cut up.
TEST(Sensitivity, SharesSumToTheWeightedProxyLoss) {
  const auto w = random_weights(kRows * kColumns, 3, 0.1f);
  std::vector<float> row_weights(kRows);
  for (std::size_t n = 0; n < row_weights.size(); ++n)
    row_weights[n] = 0.1f + static_cast<float>(n % 7);
  for (const ColumnOrder order : {ColumnOrder::kAscending, ColumnOrder::kActOrder}) {
    const Factor f = test_factor(order);
    std::vector<double> H(f.H.size());  // damped, back in the order of the columns
    for (int64_t i = 0; i < kColumns; ++i)
      for (int64_t j = 0; j < kColumns; ++j)
        H[static_cast<std::size_t>(f.order[static_cast<std::size_t>(i)] * kColumns +
                                   f.order[static_cast<std::size_t>(j)])] =
            f.H[static_cast<std::size_t>(i * kColumns + j)];
    LdlqOptions options;
    const MatrixCosts costs = measure_costs("w", w, kRows, kColumns, f, row_weights, options, 2);
    for (std::size_t i = 0; i < kWidths.size(); ++i) {
      options.bits = kWidths[i];
      const auto rounded = dequantize(ldlq(w, kRows, kColumns, f, options));
      const auto rows = row_losses(w, rounded, kRows, H, kColumns);
      double all = 0;
      double last_strip = 0;
      for (std::size_t n = 0; n < rows.size(); ++n) {
        all += 0.5 * static_cast<double>(row_weights[n]) * rows[n];
        if (n >= 128) last_strip += 0.5 * static_cast<double>(row_weights[n]) * rows[n];
      }
      ASSERT_EQ(costs.strips[i].size(), 5u);
      ASSERT_EQ(costs.columns[i].size(), 2u);
      double strips = 0;
      for (const double loss : costs.strips[i]) strips += loss;
      EXPECT_NEAR(strips / all, 1, 1e-9);
      EXPECT_NEAR(costs.strips[i][4] / last_strip, 1, 1e-9);
      EXPECT_NEAR((costs.columns[i][0] + costs.columns[i][1]) / all, 1, 1e-9);
      if (i > 0) {
        EXPECT_LT(costs.strips[i][0], costs.strips[i - 1][0]);
      }
    }
  }
}

}  // namespace
}  // namespace crumb::quant

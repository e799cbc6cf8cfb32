#include "quant/ldlq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

using kernels::Grid;

// H^-1 by Gauss-Jordan.
std::vector<double> inverse(std::vector<double> A, int64_t K) {
  std::vector<double> B(A.size());
  for (int64_t i = 0; i < K; ++i) B[static_cast<std::size_t>(i * K + i)] = 1;
  for (int64_t p = 0; p < K; ++p) {
    const double pivot = A[static_cast<std::size_t>(p * K + p)];
    for (int64_t j = 0; j < K; ++j) {
      A[static_cast<std::size_t>(p * K + j)] /= pivot;
      B[static_cast<std::size_t>(p * K + j)] /= pivot;
    }
    for (int64_t i = 0; i < K; ++i) {
      const double f = A[static_cast<std::size_t>(i * K + p)];
      if (i == p || f == 0) continue;
      for (int64_t j = 0; j < K; ++j) {
        A[static_cast<std::size_t>(i * K + j)] -= f * A[static_cast<std::size_t>(p * K + j)];
        B[static_cast<std::size_t>(i * K + j)] -= f * B[static_cast<std::size_t>(p * K + j)];
      }
    }
  }
  return B;
}

// GPTQ as its paper writes it, column by column: U upper with H^-1 = U^T U, e = (w_j - q) / U_jj,
// the rest of the row -= e U_j. Scales from `out`, or taken of the updated weights.
void textbook_gptq(std::vector<double> w, const Factor& f, ScaleRule rule, bool updated,
                   Rounded* out) {
  const int64_t K = f.K;
  auto U = inverse(f.H, K);
  for (int64_t j = 0; j < K; ++j) {  // U <- upper factor, row by row
    for (int64_t i = 0; i < j; ++i)
      for (int64_t k = j; k < K; ++k)
        U[static_cast<std::size_t>(j * K + k)] -=
            U[static_cast<std::size_t>(i * K + j)] * U[static_cast<std::size_t>(i * K + k)];
    const double root = std::sqrt(U[static_cast<std::size_t>(j * K + j)]);
    for (int64_t k = j; k < K; ++k) U[static_cast<std::size_t>(j * K + k)] /= root;
  }
  for (int64_t n = 0; n < out->N; ++n)
    for (int64_t j = 0; j < K; ++j) {
      double* row = w.data() + n * K;  // in the order of rounding
      const int64_t column = f.order[static_cast<std::size_t>(j)];
      if (updated && j % out->group == 0) {
        const auto size = static_cast<std::size_t>(std::min(out->group, K - j));
        std::vector<float> part(row + j, row + j + size);
        set_fit(out, n, j / out->group,
                fit_group(part, std::span(f.diagonal).subspan(static_cast<std::size_t>(j), size),
                          out->bits, out->grid, rule));
      }
      const GroupFit fit = fit_of(*out, n, column / out->group);
      const double top = (1 << out->bits) - 1;
      const double code =
          fit.scale > 0
              ? std::clamp(std::floor(row[j] / fit.scale + 0.5 * fit.zero2 + 0.5), 0.0, top)
              : std::floor(0.5 * fit.zero2 + 0.5);
      out->codes[static_cast<std::size_t>(n * K + column)] = static_cast<uint8_t>(code);
      const double* u = U.data() + j * K;
      const double e = (row[j] - static_cast<double>(fit.scale) * (code - 0.5 * fit.zero2)) / u[j];
      for (int64_t k = j + 1; k < K; ++k) row[k] -= e * u[k];
    }
}

std::vector<double> ordered(std::span<const float> w, int64_t N, const Factor& f) {
  std::vector<double> out(w.size());
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < f.K; ++j)
      out[static_cast<std::size_t>(n * f.K + j)] = static_cast<double>(
          w[static_cast<std::size_t>(n * f.K + f.order[static_cast<std::size_t>(j)])]);
  return out;
}

struct Case {
  int64_t group;
  int bits;
  Grid grid;
  GroupScales scales;
  ColumnOrder order;
};

const Case kCases[] = {
    {0, 2, Grid::kSeq, GroupScales::kStatic, ColumnOrder::kAscending},
    {0, 3, Grid::kLsq, GroupScales::kStatic, ColumnOrder::kDescending},
    {64, 4, Grid::kSeq, GroupScales::kStatic, ColumnOrder::kActOrder},
    {32, 3, Grid::kAsym, GroupScales::kStatic, ColumnOrder::kActOrder},
    {32, 4, Grid::kAsym, GroupScales::kUpdated, ColumnOrder::kAscending},
    {64, 2, Grid::kSeq, GroupScales::kUpdated, ColumnOrder::kAscending},
    {128, 8, Grid::kLsq, GroupScales::kUpdated, ColumnOrder::kAscending},
};

LdlqOptions options_of(const Case& c) {
  LdlqOptions options;
  options.bits = c.bits;
  options.group = c.group;
  options.grid = c.grid;
  options.scales = c.scales;
  return options;
}

TEST(Ldlq, GivesTheCodesOfTextbookGptq) {
  const int64_t N = 67;
  const int64_t K = 300;  // three blocks, the last group shorter
  const auto w = random_weights(N * K, 21);
  auto H = random_hessian(K, 12, 22, 5);
  for (int64_t k = 0; k < K; ++k)  // and one dead column
    H[static_cast<std::size_t>(9 * K + k)] = H[static_cast<std::size_t>(k * K + 9)] = 0;
  for (const Case& c : kCases) {
    const Factor f = factor(H, K, c.order, "H");
    const Rounded fast = ldlq(w, N, K, f, options_of(c), 2);
    Rounded slow = fast;
    std::fill(slow.codes.begin(), slow.codes.end(), uint8_t{0});
    textbook_gptq(ordered(w, N, f), f, ScaleRule::kWeighted, c.scales == GroupScales::kUpdated,
                  &slow);
    // A tie may fall to either side; anything else would differ in many codes.
    int64_t different = 0;
    for (std::size_t i = 0; i < slow.codes.size(); ++i)
      different += fast.codes[i] != slow.codes[i] ? 1 : 0;
    EXPECT_LE(different, N * K / 1000) << c.bits << " bits, group " << c.group;
    EXPECT_EQ(fast.scales, slow.scales);
  }
}

TEST(Ldlq, DoesNotDependOnTheNumberOfThreads) {
  const int64_t N = 200;
  const int64_t K = 300;
  const auto w = random_weights(N * K, 1);
  const auto H = random_hessian(K, 12, 2, 5);
  for (const Case& c : kCases) {
    const Factor f = factor(H, K, c.order, "H");
    LdlqOptions options = options_of(c);
    options.greedy_passes = 2;
    const Rounded one = ldlq(w, N, K, f, options, 1);
    for (const int threads : {2, 3, 16}) {
      const Rounded many = ldlq(w, N, K, f, options, threads);
      EXPECT_EQ(many.codes, one.codes);
      EXPECT_EQ(many.scales, one.scales);
      EXPECT_EQ(many.zeros, one.zeros);
    }
  }
}

TEST(Ldlq, WithoutCorrelationIsNearest) {
  const int64_t N = 5;
  const int64_t K = 160;
  const auto w = random_weights(N * K, 1);
  std::vector<double> H(static_cast<std::size_t>(K * K));
  for (int64_t k = 0; k < K; ++k) H[static_cast<std::size_t>(k * K + k)] = 1.0 + 0.1 * (k % 7);
  const Factor f = factor(H, K, ColumnOrder::kActOrder, "H");
  LdlqOptions options;
  options.greedy_passes = 3;
  EXPECT_EQ(ldlq(w, N, K, f, options).codes, round_nearest(w, N, K, f.diagonal, {}).codes);
}

TEST(Ldlq, LosesAtMostThreeQuartersOfNearest) {
  const int64_t N = 128;
  const int64_t K = 576;
  const auto w = random_weights(N * K, 5);
  const auto H = random_hessian(K, 48, 6, 3);
  for (const int bits : {2, 3, 4})
    for (const int64_t group : {0, 64}) {
      const auto loss = [&](ColumnOrder order, int passes) {
        const Factor f = factor(H, K, order, "H");
        LdlqOptions options;
        options.bits = bits;
        options.group = group;
        options.greedy_passes = passes;
        return proxy_loss(w, dequantize(ldlq(w, N, K, f, options)), N, H, K);
      };
      const Factor f = factor(H, K, ColumnOrder::kAscending, "H");
      const auto control =
          round_nearest(w, N, K, f.diagonal, {bits, group, Grid::kSeq, ScaleRule::kWeighted});
      const double nearest = proxy_loss(w, dequantize(control), N, H, K);
      const double plain = loss(ColumnOrder::kAscending, 0);
      const double act = loss(ColumnOrder::kActOrder, 0);
      const double greedy = loss(ColumnOrder::kAscending, 10);
      std::printf("SEQ%d g%lld, proxy / nearest: LDLQ %.3f, act order %.3f, greedy %.3f\n", bits,
                  static_cast<long long>(group), plain / nearest, act / nearest, greedy / nearest);
      EXPECT_LT(plain, 0.75 * nearest);
      EXPECT_LT(act, 0.75 * nearest);
      EXPECT_LT(greedy, plain);
    }
}

TEST(Ldlq, GreedyPassesNeverRaiseTheDampedLoss) {
  const int64_t N = 64;
  const int64_t K = 260;
  const auto w = random_weights(N * K, 5);
  const Factor f = factor(random_hessian(K, 16, 6, 3), K, ColumnOrder::kAscending, "H");
  LdlqOptions options;
  options.bits = 2;
  double last = 1e300;
  Rounded fixed;
  for (const int passes : {0, 1, 2, 4, 60}) {
    options.greedy_passes = passes;
    fixed = ldlq(w, N, K, f, options);
    const double loss = slow_proxy(w, dequantize(fixed), N, f.H, K);
    EXPECT_LE(loss, last * (1 + 1e-9));
    last = loss;
  }
  options.greedy_passes = 61;  // a fixed point has been reached
  EXPECT_EQ(ldlq(w, N, K, f, options).codes, fixed.codes);
}

}  // namespace
}  // namespace crumb::quant

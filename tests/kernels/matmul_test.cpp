// Packed and float matmul: every backend against the scalar one bit by bit, and against an
// independent reference that decodes one code at a time and sums in int64.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/float16.h"
#include "kernels/pack.h"
#include "tests/kernels/over_backends.h"
#include "tests/support/random_matrix.h"

namespace crumb::kernels {
namespace {

using test::as_size;
using test::bits_of;
using test::Fill;
using test::MatrixShape;
using test::RandomMatrix;
using test::RandomRows;

constexpr float kUntouched = -12345.0f;
constexpr Fill kFills[] = {Fill::kRandom, Fill::kRandom, Fill::kAllMin, Fill::kAllMax};

// y[n] of one token, straight from the contract in backend.h.
float reference(const PackedMatrix& w, const QuantizedRows& x, int64_t t, int64_t n) {
  const int64_t groups = group_count(w.cols, w.group);
  float f = 0.0f;
  for (int64_t a = 0; a < x.groups; ++a) {
    int64_t dot = 0;
    int64_t sum = 0;
    for (int64_t k = a * x.group; k < std::min((a + 1) * x.group, w.cols); ++k) {
      const int64_t q = x.q[t * x.stride + k];
      dot += unpack_code(w, n, k) * q;
      sum += q;
    }
    const int64_t g = a * x.group / w.group;
    const int64_t at = (n / 32 * groups + g) * 32 + n % 32;
    const int64_t zero2 = w.grid == Grid::kAsym ? 2 * w.zeros[at] : grid_zero2(w.grid, w.bits);
    const int64_t acc = 2 * dot - zero2 * sum;
    EXPECT_LE(std::abs(acc), std::numeric_limits<int32_t>::max());
    const float scale = (0.5f * f16_to_f32(w.scales[at])) * x.scales[t * x.groups + a];
    f = std::fma(static_cast<float>(static_cast<int32_t>(acc)), scale, f);
  }
  return f;
}

struct Problem {
  MatrixShape shape;
  int64_t x_group = 0;
  int64_t T = 1;
  Fill codes = Fill::kRandom;
  Fill activations = Fill::kRandom;
};

std::ostream& operator<<(std::ostream& out, const Problem& p) {
  return out << "bits " << p.shape.bits << " N " << p.shape.N << " K " << p.shape.K << " group "
             << p.shape.group << " grid " << static_cast<int>(p.shape.grid) << " x group "
             << p.x_group << " T " << p.T << " fills " << static_cast<int>(p.codes)
             << static_cast<int>(p.activations);
}

// All strips at once equals the reference; the output ends at a guard page.
void check(const Backend& backend, const Problem& p, std::mt19937_64& rng) {
  const RandomMatrix matrix(p.shape, p.codes, rng);
  const RandomRows rows(p.T, p.shape.K, p.x_group, p.activations, rng);
  test::GuardedBuffer<float> y(as_size(p.T * p.shape.N));
  std::fill(y.begin(), y.end(), kUntouched);
  backend.matmul(matrix.view(), rows.view(), {0, strip_count(p.shape.N)}, y.data(), p.shape.N);
  std::vector<float> expected(y.size());
  for (int64_t t = 0; t < p.T; ++t) {
    for (int64_t n = 0; n < p.shape.N; ++n) {
      expected[as_size(t * p.shape.N + n)] = reference(matrix.view(), rows.view(), t, n);
    }
  }
  ASSERT_EQ(bits_of(y.span()), bits_of(expected)) << p;
}

// The activation groups that fit a weight group.
std::vector<int64_t> activation_groups(const MatrixShape& s) {
  std::vector<int64_t> groups;
  for (const int64_t group : {32, 64}) {
    if (s.group == s.K || s.group % group == 0) groups.push_back(group);
  }
  if (s.group == s.K) groups.push_back(padded_columns(s.K));
  return groups;
}

std::vector<int64_t> weight_groups(int64_t K) {
  std::vector<int64_t> groups = {K};
  for (const int64_t group : {32, 64, 128}) {
    if (group < K) groups.push_back(group);
  }
  return groups;
}

class Matmul : public test::OverBackends {};
INSTANTIATE_TEST_SUITE_P(Backends, Matmul, testing::ValuesIn(test::backend_names()),
                         test::backend_label);

TEST_P(Matmul, EveryFormatOnRealWidths) {
  std::mt19937_64 rng(1);
  for (const int64_t K : {64, 96, 320, 576}) {
    for (const int bits : {2, 3, 4, 8}) {
      for (const Grid grid : {Grid::kSeq, Grid::kLsq, Grid::kAsym}) {
        for (const int64_t group : weight_groups(K)) {
          const MatrixShape shape{35, K, group, bits, grid};
          for (const int64_t x_group : activation_groups(shape)) {
            for (const int64_t T : {1, 6}) check(backend(), {shape, x_group, T}, rng);
          }
        }
      }
    }
  }
}

TEST_P(Matmul, EveryWidth) {
  std::mt19937_64 rng(2);
  for (int64_t K = 1; K <= 300; ++K) {
    for (const int bits : {2, 3, 4, 8}) {
      const auto groups = weight_groups(K);
      const auto grid = static_cast<Grid>(rng() % 3);
      const MatrixShape shape{test::uniform(rng, 1, 34), K, groups[rng() % groups.size()], bits,
                              grid};
      const auto x_groups = activation_groups(shape);
      const int64_t T = test::uniform(rng, 1, 5);
      check(backend(),
            {shape, x_groups[rng() % x_groups.size()], T, kFills[rng() % 4], kFills[rng() % 4]},
            rng);
    }
  }
}

TEST_P(Matmul, EveryTokenCount) {
  std::mt19937_64 rng(3);
  for (int64_t T = 1; T <= 9; ++T) {
    for (const int bits : {2, 3, 4, 8}) {
      check(backend(), {{65, 160, 64, bits, Grid::kSeq}, 32, T}, rng);
      check(backend(), {{16, 160, 160, bits, Grid::kAsym}, 160, T}, rng);
    }
  }
}

// Prefill blocks: more tokens than any tile or panel has, more columns than a panel, and a padded K
// that is no multiple of 64.
TEST_P(Matmul, PromptsOfEveryFormat) {
  std::mt19937_64 rng(8);
  for (const int64_t T : {15, 16, 33, 64, 87}) {
    for (const int64_t K : {64, 200, 1090}) {
      for (const int bits : {2, 3, 4, 8}) {
        check(backend(), {{40, K, K, bits, Grid::kSeq}, padded_columns(K), T}, rng);
        if (T % 2 != 0 && K > 64) {
          check(backend(), {{40, K, 64, bits, Grid::kAsym}, 64, T}, rng);
          check(backend(), {{40, K, 128, bits, Grid::kLsq}, 32, T}, rng);
        }
      }
    }
  }
}

TEST_P(Matmul, ExtremesNeverSaturate) {
  std::mt19937_64 rng(4);
  for (const int64_t K : {256, 1536, 8960}) {
    for (const int bits : {2, 3, 4, 8}) {
      for (const Fill codes : {Fill::kAllMin, Fill::kAllMax, Fill::kRandom}) {
        for (const Fill activations : {Fill::kAllMin, Fill::kAllMax}) {
          for (const int64_t T : {1, 4, 16}) {
            const MatrixShape row_scale{8, K, K, bits, Grid::kAsym};
            check(backend(), {row_scale, K, T, codes, activations}, rng);
            const MatrixShape grouped{8, K, 64, bits, Grid::kSeq};
            check(backend(), {grouped, 64, T, codes, activations}, rng);
          }
        }
      }
    }
  }
}

TEST_P(Matmul, LargestWidthStaysExact) {
  std::mt19937_64 rng(5);
  for (const Fill codes : {Fill::kAllMin, Fill::kAllMax}) {
    for (const Fill activations : {Fill::kAllMin, Fill::kAllMax}) {
      const MatrixShape shape{3, kMaxColumns, kMaxColumns, 8, Grid::kAsym};
      check(backend(), {shape, kMaxColumns, 1, codes, activations}, rng);
    }
  }
}

TEST_P(Matmul, PartialRangesLeaveOtherRowsUntouched) {
  std::mt19937_64 rng(6);
  const int64_t N = 150;
  const int64_t T = 5;
  const int64_t ldy = N + 7;
  for (const int bits : {2, 3, 4, 8}) {
    const RandomMatrix matrix({N, 96, 32, bits, Grid::kLsq}, Fill::kRandom, rng);
    const RandomRows rows(T, 96, 32, Fill::kRandom, rng);
    for (const Range range : {Range{0, 1}, Range{1, 3}, Range{4, 5}, Range{2, 2}}) {
      test::GuardedBuffer<float> y(as_size((T - 1) * ldy + N));
      std::fill(y.begin(), y.end(), kUntouched);
      backend().matmul(matrix.view(), rows.view(), range, y.data(), ldy);
      for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
        const int64_t t = i / ldy;
        const int64_t n = i % ldy;
        const bool inside = n < N && n >= range.begin * 32 && n < range.end * 32;
        const float expected = inside ? reference(matrix.view(), rows.view(), t, n) : kUntouched;
        ASSERT_EQ(y[as_size(i)], expected) << "t " << t << " n " << n;
      }
    }
  }
}

TEST_P(Matmul, ManyTokensEqualOneByOne) {
  std::mt19937_64 rng(7);
  const int64_t N = 64;
  for (const int bits : {2, 3, 4, 8}) {
    for (int64_t T = 2; T <= 9; ++T) {
      const RandomMatrix matrix({N, 192, 64, bits, Grid::kSeq}, Fill::kRandom, rng);
      const RandomRows rows(T, 192, 64, Fill::kRandom, rng);
      std::vector<float> together(as_size(T * N));
      backend().matmul(matrix.view(), rows.view(), {0, 2}, together.data(), N);
      std::vector<float> alone(together.size());
      for (int64_t t = 0; t < T; ++t) {
        backend().matmul(matrix.view(), rows.token(t), {0, 2}, alone.data() + t * N, N);
      }
      ASSERT_EQ(bits_of(together), bits_of(alone)) << "bits " << bits << " T " << T;
    }
  }
}

TEST_P(Matmul, NearTheDequantizedProduct) {
  std::mt19937_64 rng(8);
  const int64_t K = 576;
  for (const int bits : {2, 3, 4, 8}) {
    const RandomMatrix matrix({40, K, 64, bits, Grid::kSeq}, Fill::kRandom, rng);
    const RandomRows rows(1, K, 32, Fill::kRandom, rng);
    std::vector<float> y(40);
    backend().matmul(matrix.view(), rows.view(), {0, 2}, y.data(), 40);
    std::vector<float> weights(as_size(K));
    for (int64_t n = 0; n < 40; ++n) {
      dequantize_row(matrix.view(), n, weights);
      double sum = 0.0;
      double size = 0.0;
      for (int64_t k = 0; k < K; ++k) {
        const double x = static_cast<double>(rows.view().q[k]) * rows.view().scales[k / 32];
        sum += weights[as_size(k)] * x;
        size += std::fabs(weights[as_size(k)] * x);
      }
      ASSERT_NEAR(y[as_size(n)], sum, 64 * 0x1p-24 * size + 1e-30);
    }
  }
}

TEST_P(Matmul, FloatEqualsScalarAndIsNearDouble) {
  std::mt19937_64 rng(9);
  for (int64_t K : {1, 7, 15, 16, 17, 31, 33, 64, 100, 576}) {
    for (const int64_t T : {1, 2, 3}) {
      const int64_t N = test::uniform(rng, 5, 20);
      test::GuardedBuffer<float> w(as_size(N * K));
      test::GuardedBuffer<float> x(as_size(T * K));
      test::fill_floats(w.span(), rng);
      test::fill_floats(x.span(), rng);
      test::GuardedBuffer<float> y(as_size(T * N));
      std::vector<float> expected(y.size(), kUntouched);
      std::fill(y.begin(), y.end(), kUntouched);
      const Range range{1, N - 1};
      backend().matmul_f32(w.data(), K, x.data(), T, range, y.data(), N);
      scalar().matmul_f32(w.data(), K, x.data(), T, range, expected.data(), N);
      ASSERT_EQ(bits_of(y.span()), bits_of(expected)) << "K " << K;
      for (int64_t i = 0; i < T * N; ++i) {
        const int64_t n = i % N;
        if (n < range.begin || n >= range.end) {
          ASSERT_EQ(y[as_size(i)], kUntouched);
          continue;
        }
        double sum = 0.0;
        double size = 0.0;
        for (int64_t k = 0; k < K; ++k) {
          const double product =
              static_cast<double>(w[as_size(n * K + k)]) * x[as_size(i / N * K + k)];
          sum += product;
          size += std::fabs(product);
        }
        ASSERT_NEAR(y[as_size(i)], sum, (static_cast<double>(K) / 16 + 6) * 0x1p-24 * size);
      }
    }
  }
}

}  // namespace
}  // namespace crumb::kernels

#include "quant/rotation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quant/ldlq.h"
#include "tests/quant/hessian.h"

namespace crumb::quant {
namespace {

// T as a matrix [K, K].
std::vector<double> matrix_of(const models::Rotation& rotation, int64_t K) {
  const auto signs = models::rotation_signs(rotation, K);
  std::vector<double> T(static_cast<std::size_t>(K * K));
  const int64_t B = rotation.hadamard;
  for (int64_t i = 0; i < K; ++i)
    for (int64_t j = i / B * B; j < i / B * B + B; ++j)
      T[static_cast<std::size_t>(i * K + j)] =
          (__builtin_popcountll(static_cast<uint64_t>(i & j & (B - 1))) % 2 == 0 ? 1 : -1) *
          static_cast<double>(signs[static_cast<std::size_t>(j)]) / std::sqrt(double(B));
  return T;
}

// A B or A B^T, [K, K] each.
std::vector<double> product(const std::vector<double>& A, const std::vector<double>& B, int64_t K,
                            bool transpose) {
  std::vector<double> C(A.size());
  for (int64_t i = 0; i < K; ++i)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t j = 0; j < K; ++j)
        C[static_cast<std::size_t>(i * K + j)] +=
            A[static_cast<std::size_t>(i * K + k)] *
            B[static_cast<std::size_t>(transpose ? j * K + k : k * K + j)];
  return C;
}

TEST(Rotation, OfASecondMomentIsTheMatrixProductAndInvertsExactly) {
  for (const models::Rotation rotation : {models::Rotation{32, 1}, models::Rotation{64, 9}}) {
    const int64_t K = 192;
    const auto H = random_hessian(K, 8, 2, 10);
    const auto T = matrix_of(rotation, K);
    auto turned = H;
    rotate_hessian(turned, K, rotation, 1);
    const auto expected = product(product(T, H, K, false), T, K, true);
    for (std::size_t i = 0; i < H.size(); ++i) ASSERT_NEAR(turned[i], expected[i], 1e-10);
    auto transposed = T;
    for (int64_t i = 0; i < K; ++i)
      for (int64_t j = 0; j < K; ++j)
        transposed[static_cast<std::size_t>(i * K + j)] = T[static_cast<std::size_t>(j * K + i)];
    const auto back = product(product(transposed, turned, K, false), transposed, K, true);
    for (std::size_t i = 0; i < H.size(); ++i) ASSERT_NEAR(back[i], H[i], 1e-5);
    auto again = H;
    rotate_hessian(again, K, rotation, 3);
    EXPECT_EQ(again, turned);
  }
}

TEST(Rotation, KeepsTheProxyLoss) {
  const int64_t N = 8;
  const int64_t K = 128;
  auto H = random_hessian(K, 8, 2, 10);
  auto w = random_weights(N * K, 1);
  auto v = random_weights(N * K, 2);
  const double before = proxy_loss(w, v, N, H, K);
  const models::Rotation rotation{64, 5};
  rotate_hessian(H, K, rotation);
  rotate_rows(w, K, rotation);
  rotate_rows(v, K, rotation);
  EXPECT_NEAR(proxy_loss(w, v, N, H, K), before, 1e-5 * before);
}

TEST(Rotation, WithLdlqBeatsEither) {
  const int64_t N = 128;
  const int64_t K = 576;
  const models::Rotation rotation{64, 5};
  const auto H = random_hessian(K, 48, 3, 6);
  auto w = random_weights(N * K, 4);
  auto turned_H = H;
  auto turned = w;
  rotate_hessian(turned_H, K, rotation);
  rotate_rows(turned, K, rotation);
  for (const int bits : {2, 3, 4}) {
    const auto loss = [&](const std::vector<float>& m, const std::vector<double>& h, bool ldl) {
      const Factor f = factor(h, K, ColumnOrder::kAscending, "H");
      LdlqOptions options;
      options.bits = bits;
      const Rounded r = ldl ? ldlq(m, N, K, f, options)
                            : round_nearest(m, N, K, f.diagonal,
                                            {bits, 0, kernels::Grid::kSeq, ScaleRule::kWeighted});
      return proxy_loss(m, dequantize(r), N, h, K);
    };
    const double nearest = loss(w, H, false);
    const double rotated = loss(turned, turned_H, false);
    const double alone = loss(w, H, true);
    const double both = loss(turned, turned_H, true);
    std::printf("SEQ%d rows, proxy / nearest: rotation %.3f, LDLQ %.3f, both %.3f\n", bits,
                rotated / nearest, alone / nearest, both / nearest);
    EXPECT_LT(both, 0.8 * rotated);
    EXPECT_LT(both, 0.95 * alone);
  }
}

}  // namespace
}  // namespace crumb::quant

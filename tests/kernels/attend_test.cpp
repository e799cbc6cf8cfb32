// Attention of one head: every backend against the scalar one bit by bit, and against double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/float16.h"
#include "tests/kernels/over_backends.h"
#include "tests/support/random_matrix.h"

namespace crumb::kernels {
namespace {

using test::as_size;
using test::bits_of;
using Floats = test::GuardedBuffer<float>;

class Attend : public test::OverBackends {};
INSTANTIATE_TEST_SUITE_P(Backends, Attend, testing::ValuesIn(test::backend_names()),
                         test::backend_label);

// Keys and values of one head in every type, with the doubles they stand for.
struct Cache {
  Cache(int64_t n, int64_t Dh, KvType kv_type, std::mt19937_64& rng)
      : type(kv_type), size(as_size(n * Dh)), k_scale(as_size(n)), v_scale(as_size(n)) {
    fill(k, k_scale, Dh, rng);
    fill(v, v_scale, Dh, rng);
  }
  struct Part {
    explicit Part(std::size_t n, KvType type)
        : f32(type == KvType::kF32 ? n : 0),
          f16(type == KvType::kF16 ? n : 0),
          i8(type == KvType::kI8 ? n : 0),
          exact(n) {}
    Floats f32;
    test::GuardedBuffer<uint16_t> f16;
    test::GuardedBuffer<int8_t> i8;
    std::vector<double> exact;
  };

  void fill(Part& part, Floats& scales, int64_t Dh, std::mt19937_64& rng) const {
    for (float& s : scales.span()) s = test::uniform_float(rng, 0.001f, 0.02f);
    for (std::size_t i = 0; i < size; ++i) {
      const float x = test::uniform_float(rng, -2.0f, 2.0f);
      if (type == KvType::kF32) part.exact[i] = part.f32[i] = x;
      if (type == KvType::kF16) part.exact[i] = f16_to_f32(part.f16[i] = f32_to_f16(x));
      if (type == KvType::kI8) {
        part.i8[i] = static_cast<int8_t>(test::uniform(rng, -127, 127));
        part.exact[i] = static_cast<double>(part.i8[i]) * scales[i / as_size(Dh)];
      }
    }
  }
  const void* data(const Part& part) const {
    if (type == KvType::kF32) return part.f32.data();
    if (type == KvType::kF16) return part.f16.data();
    return part.i8.data();
  }
  KvHead head() const {
    const bool scaled = type == KvType::kI8;
    return {data(k), data(v), scaled ? k_scale.data() : nullptr, scaled ? v_scale.data() : nullptr,
            type};
  }

  KvType type;
  std::size_t size;
  Floats k_scale;
  Floats v_scale;
  Part k{size, type};
  Part v{size, type};
};

std::vector<double> attend_double(const Floats& q, const Cache& cache, int64_t n, int64_t Dh,
                                  double scale) {
  std::vector<double> s(as_size(n));
  double m = -1e300;
  for (int64_t p = 0; p < n; ++p) {
    for (int64_t d = 0; d < Dh; ++d)
      s[as_size(p)] += q[as_size(d)] * cache.k.exact[as_size(p * Dh + d)];
    s[as_size(p)] *= scale;
    m = std::max(m, s[as_size(p)]);
  }
  std::vector<double> out(as_size(Dh));
  double sum = 0.0;
  for (int64_t p = 0; p < n; ++p) {
    const double e = std::exp(s[as_size(p)] - m);
    sum += e;
    for (int64_t d = 0; d < Dh; ++d) out[as_size(d)] += e * cache.v.exact[as_size(p * Dh + d)];
  }
  for (double& v : out) v /= sum;
  return out;
}

TEST_P(Attend, EqualsScalarAndIsNearDouble) {
  std::mt19937_64 rng(1);
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kI8}) {
    for (const int64_t Dh : {4, 8, 15, 32, 64, 72, 80, 128, 131}) {
      for (const int64_t n : {1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 40, 100}) {
        const Cache cache(n, Dh, type, rng);
        Floats q(as_size(Dh));
        for (float& x : q.span()) x = test::uniform_float(rng, -3.0f, 3.0f);
        const float scale = 1.0f / std::sqrt(static_cast<float>(Dh));
        Floats scores(as_size(n));
        Floats out(as_size(Dh));
        backend().attend(q.data(), cache.head(), n, Dh, scale, scores.data(), out.data());
        std::vector<float> scratch(as_size(n));
        std::vector<float> expected(as_size(Dh));
        scalar().attend(q.data(), cache.head(), n, Dh, scale, scratch.data(), expected.data());
        ASSERT_EQ(bits_of(out.span()), bits_of(expected)) << "Dh " << Dh << " n " << n;
        const auto exact = attend_double(q, cache, n, Dh, static_cast<double>(scale));
        for (int64_t d = 0; d < Dh; ++d) {
          ASSERT_NEAR(out[as_size(d)], exact[as_size(d)], 2e-5) << "Dh " << Dh << " n " << n;
        }
      }
    }
  }
}

TEST_P(Attend, FarScoresVanishInsteadOfOverflowing) {
  // One position scores 1000 more than the rest: only its value remains.
  const int64_t Dh = 16;
  const int64_t n = 21;
  Floats k(as_size(n * Dh));
  Floats v(as_size(n * Dh));
  Floats q(as_size(Dh));
  q[0] = 1.0f;
  for (int64_t p = 0; p < n; ++p) {
    k[as_size(p * Dh)] = p == 13 ? 500.0f : -500.0f;
    for (int64_t d = 0; d < Dh; ++d) v[as_size(p * Dh + d)] = static_cast<float>(p * 100 + d);
  }
  Floats scores(as_size(n));
  Floats out(as_size(Dh));
  backend().attend(q.data(), {k.data(), v.data(), nullptr, nullptr, KvType::kF32}, n, Dh, 1.0f,
                   scores.data(), out.data());
  for (int64_t d = 0; d < Dh; ++d) EXPECT_EQ(out[as_size(d)], static_cast<float>(1300 + d));
}

}  // namespace
}  // namespace crumb::kernels

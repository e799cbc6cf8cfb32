// Attention of one head: every backend against the scalar one bit by bit, and against double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/aligned.h"
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
      : type(kv_type),
        k_scale(as_size(n)),
        v_scale(as_size(n)),
        k(as_size((n + kKeyTile - 1) / kKeyTile * kKeyTile * Dh), type),
        v(as_size(n * Dh), type) {
    for (int64_t p = 0; p < n; ++p) {
      k_scale[as_size(p)] = test::uniform_float(rng, 0.001f, 0.02f);
      v_scale[as_size(p)] = test::uniform_float(rng, 0.001f, 0.02f);
      for (int64_t d = 0; d < Dh; ++d) {
        fill(k, key_at(p, d, Dh), k_scale[as_size(p)], rng);
        fill(v, as_size(p * Dh + d), v_scale[as_size(p)], rng);
      }
    }
  }
  static std::size_t key_at(int64_t p, int64_t d, int64_t Dh) {
    return as_size((p / kKeyTile * Dh + d) * kKeyTile + p % kKeyTile);
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

  void fill(Part& part, std::size_t i, float scale, std::mt19937_64& rng) const {
    const float x = test::uniform_float(rng, -2.0f, 2.0f);
    if (type == KvType::kF32) part.exact[i] = part.f32[i] = x;
    if (type == KvType::kF16) part.exact[i] = f16_to_f32(part.f16[i] = f32_to_f16(x));
    if (type == KvType::kI8) {
      part.i8[i] = static_cast<int8_t>(test::uniform(rng, -127, 127));
      part.exact[i] = static_cast<double>(part.i8[i]) * scale;
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
  Floats k_scale;
  Floats v_scale;
  Part k;
  Part v;
};

std::vector<double> attend_double(const Floats& q, const Cache& cache, int64_t first, int64_t n,
                                  int64_t Dh, double scale) {
  std::vector<double> s(as_size(n));
  double m = -1e300;
  for (int64_t p = first; p < n; ++p) {
    for (int64_t d = 0; d < Dh; ++d)
      s[as_size(p)] += q[as_size(d)] * cache.k.exact[Cache::key_at(p, d, Dh)];
    s[as_size(p)] *= scale;
    m = std::max(m, s[as_size(p)]);
  }
  std::vector<double> out(as_size(Dh));
  double sum = 0.0;
  for (int64_t p = first; p < n; ++p) {
    const double e = std::exp(s[as_size(p)] - m);
    sum += e;
    for (int64_t d = 0; d < Dh; ++d) out[as_size(d)] += e * cache.v.exact[as_size(p * Dh + d)];
  }
  for (double& v : out) v /= sum;
  return out;
}

// Queries that see n, n - 1, n - 2, .. positions (at least 1), as the tokens of a prompt do.
struct Queries {
  Queries(const Backend& backend, const Cache& cache, int64_t count, int64_t n, int64_t Dh,
          std::mt19937_64& rng, int64_t window = 0)
      : q(as_size(count * Dh)), out(as_size(count * Dh)), rows(as_size(count)) {
    for (float& x : q.span()) x = test::uniform_float(rng, -3.0f, 3.0f);
    for (int64_t r = 0; r < count; ++r) {
      AttendRow& row = rows[as_size(r)];
      row.q = q.data() + r * Dh;
      row.out = out.data() + r * Dh;
      row.n = std::max<int64_t>(1, n - (count - 1 - r) / 2);
      row.first = window > 0 ? std::max<int64_t>(0, row.n - window) : 0;
    }
    AlignedBuffer<float> scores(as_size(kAttendRows * kAttendChunk));
    backend.attend(cache.head(), Dh, 1.0f / std::sqrt(static_cast<float>(Dh)), rows.data(), count,
                   scores.data());
  }
  Floats q, out;
  std::vector<AttendRow> rows;
};

void expect_near_double(const Queries& queries, const Cache& cache, int64_t Dh) {
  for (const AttendRow& row : queries.rows) {
    Floats q(as_size(Dh));
    std::copy(row.q, row.q + Dh, q.data());
    const auto exact =
        attend_double(q, cache, row.first, row.n, Dh, 1.0 / std::sqrt(static_cast<double>(Dh)));
    for (int64_t d = 0; d < Dh; ++d)
      ASSERT_NEAR(row.out[d] / row.sum, exact[as_size(d)], 2e-5) << "Dh " << Dh << " n " << row.n;
  }
}

TEST_P(Attend, EqualsScalarAndIsNearDouble) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kI8}) {
    for (const int64_t Dh : {4, 15, 64, 72, 80, 128, 131}) {
      for (const int64_t n : {1, 2, 7, 8, 9, 16, 17, 31, 40, 100, 129, 512}) {
        for (const int64_t count : {1, 2, 3, 5, 7, 13, 24}) {
          if (n == 512 && (Dh != 64 || count % 6 != 0)) continue;
          std::mt19937_64 rng(1);
          const Cache cache(n, Dh, type, rng);
          std::mt19937_64 again = rng;
          Queries found(backend(), cache, count, n, Dh, rng);
          Queries expected(scalar(), cache, count, n, Dh, again);
          ASSERT_EQ(bits_of(found.out.span()), bits_of(expected.out.span()))
              << "Dh " << Dh << " n " << n << " rows " << count;
          for (std::size_t r = 0; r < found.rows.size(); ++r) {
            ASSERT_EQ(found.rows[r].max, expected.rows[r].max);
            ASSERT_EQ(found.rows[r].sum, expected.rows[r].sum);
          }
          if (count < 3) expect_near_double(found, cache, Dh);
        }
      }
    }
  }
}

TEST_P(Attend, SeesOnlyItsWindow) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kI8}) {
    for (const int64_t window : {1, 3, 16, 20, 100}) {
      for (const int64_t n : {1, 17, 100, 129}) {
        std::mt19937_64 rng(2);
        const Cache cache(n, 64, type, rng);
        std::mt19937_64 again = rng;
        Queries found(backend(), cache, 7, n, 64, rng, window);
        Queries expected(scalar(), cache, 7, n, 64, again, window);
        ASSERT_EQ(bits_of(found.out.span()), bits_of(expected.out.span()));
        for (std::size_t r = 0; r < found.rows.size(); ++r)
          ASSERT_EQ(found.rows[r].sum, expected.rows[r].sum);
        expect_near_double(found, cache, 64);
      }
    }
  }
}

TEST_P(Attend, FarScoresVanishInsteadOfOverflowing) {
  // One position scores 1000 more than the rest: only its value remains.
  const int64_t Dh = 16;
  const int64_t n = 21;
  AlignedBuffer<float> k(2 * kKeyTile * Dh), v(n * Dh), scores(kAttendRows * kAttendChunk);
  Floats q(as_size(Dh)), out(as_size(Dh));
  q[0] = 1.0f;
  for (int64_t p = 0; p < n; ++p) {
    k.data()[Cache::key_at(p, 0, Dh)] = p == 13 ? 500.0f : -500.0f;
    for (int64_t d = 0; d < Dh; ++d) v.data()[p * Dh + d] = static_cast<float>(p * 100 + d);
  }
  AttendRow row;
  row.q = q.data();
  row.out = out.data();
  row.n = n;
  backend().attend({k.data(), v.data(), nullptr, nullptr, KvType::kF32}, Dh, 1.0f, &row, 1,
                   scores.data());
  EXPECT_EQ(row.sum, 1.0f);
  EXPECT_EQ(row.max, 500.0f);
  for (int64_t d = 0; d < Dh; ++d) EXPECT_EQ(out[as_size(d)], static_cast<float>(1300 + d));
}

}  // namespace
}  // namespace crumb::kernels

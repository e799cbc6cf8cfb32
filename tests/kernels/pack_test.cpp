#include "kernels/pack.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include "kernels/float16.h"
#include "kernels/layout.h"
#include "tests/support/random_matrix.h"

namespace crumb::kernels {
namespace {

using test::as_size;

TEST(Pack, EveryCodeComesBack) {
  std::mt19937_64 rng(1);
  for (const int bits : {2, 3, 4, 8}) {
    for (const int64_t K : {1, 3, 4, 31, 32, 33, 64, 100, 576}) {
      for (const int64_t N : {1, 31, 32, 33, 70}) {
        std::vector<uint8_t> codes(as_size(N * K));
        for (uint8_t& c : codes) c = static_cast<uint8_t>(rng() & ((1u << bits) - 1));
        std::vector<uint8_t> packed(as_size(strip_count(N) * strip_code_bytes(K, bits)), 0xff);
        pack_codes(codes, N, K, bits, packed);
        PackedMatrix w;
        w.codes = packed.data();
        w.rows = N;
        w.cols = K;
        w.bits = bits;
        for (int64_t n = 0; n < N; ++n) {
          for (int64_t k = 0; k < K; ++k) {
            ASSERT_EQ(unpack_code(w, n, k), codes[as_size(n * K + k)])
                << "bits " << bits << " N " << N << " K " << K << " n " << n << " k " << k;
          }
        }
      }
    }
  }
}

TEST(Pack, PaddingIsZeroAndAllBitsAreUsedOnce) {
  // A strip of 32 x 32 codes of all ones fills its bytes completely; one short of it does not.
  for (const int bits : {2, 3, 4, 8}) {
    const auto top = static_cast<uint8_t>((1 << bits) - 1);
    std::vector<uint8_t> packed(as_size(strip_code_bytes(32, bits)));
    pack_codes(std::vector<uint8_t>(32 * 32, top), 32, 32, bits, packed);
    for (const uint8_t byte : packed) ASSERT_EQ(byte, 0xff) << bits;
    pack_codes(std::vector<uint8_t>(31 * 31, top), 31, 31, bits, packed);
    int ones = 0;
    for (const uint8_t byte : packed) ones += std::popcount(byte);
    EXPECT_EQ(ones, 31 * 31 * bits);
  }
}

TEST(Pack, LayoutOfTheHeaderComment) {
  // One code set in an otherwise zero strip, at the places the comment in layout.h names.
  struct Case {
    int bits;
    int64_t row, k, byte;
    uint8_t expected;
  };
  const Case cases[] = {
      {8, 5, 6, 128 + 4 * 5 + 2, 0xff}, {4, 5, 2, 4 * 5 + 2, 0x0f}, {4, 5, 6, 4 * 5 + 2, 0xf0},
      {4, 31, 15, 128 + 127, 0xf0},     {2, 0, 0, 0, 0x03},         {2, 7, 13, 4 * 7 + 1, 0xc0},
      {2, 7, 16, 128 + 4 * 7, 0x03},    {3, 9, 21, 128 + 37, 0x0c}, {3, 9, 21, 256 + 37, 0x20},
      {3, 9, 32, 384 + 36, 0x03}};
  for (const Case& c : cases) {
    std::vector<uint8_t> codes(32 * 64);
    codes[as_size(c.row * 64 + c.k)] = static_cast<uint8_t>((1 << c.bits) - 1);
    std::vector<uint8_t> packed(as_size(strip_code_bytes(64, c.bits)));
    pack_codes(codes, 32, 64, c.bits, packed);
    EXPECT_EQ(packed[as_size(c.byte)], c.expected) << c.bits << " " << c.row << " " << c.k;
  }
}

TEST(Pack, GroupValuesLandInTheirStrip) {
  const int64_t N = 40;
  const int64_t groups = 3;
  std::vector<uint16_t> values(as_size(N * groups));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i + 1);
  std::vector<uint16_t> packed(as_size(2 * groups * 32));
  pack_groups(std::span<const uint16_t>(values), N, groups, 7777, packed);
  for (int64_t n = 0; n < 64; ++n) {
    for (int64_t g = 0; g < groups; ++g) {
      const uint16_t found = packed[as_size((n / 32 * groups + g) * 32 + n % 32)];
      EXPECT_EQ(found, n < N ? n * groups + g + 1 : 7777);
    }
  }
}

TEST(Pack, DequantizedValuesFollowTheGrid) {
  std::mt19937_64 rng(2);
  for (const Grid grid : {Grid::kSeq, Grid::kLsq, Grid::kAsym}) {
    for (const int bits : {2, 3, 4, 8}) {
      const test::RandomMatrix matrix({37, 100, 32, bits, grid}, test::Fill::kRandom, rng);
      const PackedMatrix& w = matrix.view();
      std::vector<float> row(100);
      for (int64_t n = 0; n < w.rows; ++n) {
        dequantize_row(w, n, row);
        for (int64_t k = 0; k < w.cols; ++k) {
          const int64_t at = (n / 32 * matrix.groups() + k / 32) * 32 + n % 32;
          double zero = grid == Grid::kSeq ? ((1 << bits) - 1) / 2.0 : (1 << bits) / 2.0;
          if (grid == Grid::kAsym) zero = w.zeros[at];
          const double expected = f16_to_f32(w.scales[at]) * (unpack_code(w, n, k) - zero);
          ASSERT_EQ(static_cast<double>(row[as_size(k)]), expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace crumb::kernels

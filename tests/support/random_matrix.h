// Seeded packed matrices and quantised activations, in memory that ends at guard pages.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/backend.h"
#include "kernels/float16.h"
#include "kernels/layout.h"
#include "kernels/pack.h"
#include "tests/support/guard_page.h"

namespace crumb::test {

enum class Fill : uint8_t { kRandom, kAllMin, kAllMax };

inline int64_t uniform(std::mt19937_64& rng, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng() % static_cast<uint64_t>(high - low + 1));
}
inline float uniform_float(std::mt19937_64& rng, float low, float high) {
  const auto unit = static_cast<float>(rng() >> 40) * 0x1p-24f;
  return low + (high - low) * unit;
}
inline std::size_t as_size(int64_t n) { return static_cast<std::size_t>(n); }

struct MatrixShape {
  int64_t N = 0;
  int64_t K = 0;
  int64_t group = 0;
  int bits = 0;
  kernels::Grid grid = kernels::Grid::kSeq;
};

// A packed matrix that owns its memory. Scales are random binary16, some of them zero, some
// subnormal, some negative.
class RandomMatrix {
 public:
  RandomMatrix(const MatrixShape& s, Fill fill, std::mt19937_64& rng)
      : groups_(kernels::group_count(s.K, s.group)),
        codes_(as_size(kernels::strip_count(s.N) * kernels::strip_code_bytes(s.K, s.bits))),
        scales_(as_size(kernels::strip_count(s.N) * groups_ * kernels::kStripRows)),
        zeros_(s.grid == kernels::Grid::kAsym ? scales_.size() : 0) {
    const int64_t top = (int64_t{1} << s.bits) - 1;
    std::vector<uint8_t> codes(as_size(s.N * s.K));
    for (uint8_t& code : codes) {
      const int64_t c = fill == Fill::kRandom   ? uniform(rng, 0, top)
                        : fill == Fill::kAllMin ? 0
                                                : top;
      code = static_cast<uint8_t>(c);
    }
    kernels::pack_codes(codes, s.N, s.K, s.bits, codes_.span());
    std::vector<uint16_t> scales(as_size(s.N * groups_));
    for (uint16_t& scale : scales) {
      const int64_t kind = uniform(rng, 0, 15);
      float value = uniform_float(rng, -0.1f, 0.1f);
      if (kind == 0) value = 0.0f;
      if (kind == 1) value = 0x1p-24f * static_cast<float>(uniform(rng, 1, 1023));
      scale = kernels::f32_to_f16(value);
    }
    kernels::pack_groups(std::span<const uint16_t>(scales), s.N, groups_, 0, scales_.span());
    if (s.grid == kernels::Grid::kAsym) {
      std::vector<uint8_t> zeros(as_size(s.N * groups_));
      for (uint8_t& zero : zeros) zero = static_cast<uint8_t>(uniform(rng, 0, top));
      kernels::pack_groups(std::span<const uint8_t>(zeros), s.N, groups_, 0, zeros_.span());
    }
    view_ = {codes_.data(),
             scales_.data(),
             zeros_.size() == 0 ? nullptr : zeros_.data(),
             s.N,
             s.K,
             s.group,
             s.bits,
             s.grid};
  }
  const kernels::PackedMatrix& view() const { return view_; }
  int64_t groups() const { return groups_; }

 private:
  int64_t groups_;
  GuardedBuffer<uint8_t> codes_;
  GuardedBuffer<uint16_t> scales_;
  GuardedBuffer<uint8_t> zeros_;
  kernels::PackedMatrix view_;
};

// T rows of int8 activations with consistent sums; kAllMin and kAllMax are the extremes -127 and
// 127.
class RandomRows {
 public:
  RandomRows(int64_t T, int64_t K, int64_t group, Fill fill, std::mt19937_64& rng)
      : stride_((kernels::padded_columns(K) + 63) / 64 * 64),
        groups_(kernels::group_count(kernels::padded_columns(K), group)),
        q_(as_size(T * stride_)),
        scales_(as_size(T * groups_)),
        sums_(as_size(T * groups_)) {
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t k = 0; k < K; ++k) {
        const int64_t v = fill == Fill::kRandom   ? uniform(rng, -127, 127)
                          : fill == Fill::kAllMin ? -127
                                                  : 127;
        q_[as_size(t * stride_ + k)] = static_cast<int8_t>(v);
        sums_[as_size(t * groups_ + k / group)] += static_cast<int32_t>(v);
      }
    }
    for (float& scale : scales_.span()) {
      const int64_t kind = uniform(rng, 0, 15);
      scale = uniform_float(rng, 0.0f, 1.0f);
      if (kind == 0) scale = 0.0f;
      if (kind == 1) scale *= 0x1p-100f;
    }
    view_ = {q_.data(), scales_.data(), sums_.data(), T, stride_, group, groups_};
  }
  const kernels::QuantizedRows& view() const { return view_; }
  // The view of token t alone.
  kernels::QuantizedRows token(int64_t t) const {
    kernels::QuantizedRows one = view_;
    one.q += t * stride_;
    one.scales += t * groups_;
    one.sums += t * groups_;
    one.tokens = 1;
    return one;
  }

 private:
  int64_t stride_;
  int64_t groups_;
  GuardedBuffer<int8_t> q_;
  GuardedBuffer<float> scales_;
  GuardedBuffer<int32_t> sums_;
  kernels::QuantizedRows view_;
};

// n random floats of mixed magnitude that end at a guard page.
inline void fill_floats(std::span<float> out, std::mt19937_64& rng, float spread = 4.0f) {
  for (float& x : out) {
    const float mantissa = uniform_float(rng, -1.0f, 1.0f);
    x = mantissa * std::exp2(uniform_float(rng, -spread, spread));
  }
}

// Bits of floats, so that comparisons see -0 and NaN.
inline std::vector<uint32_t> bits_of(std::span<const float> x) {
  std::vector<uint32_t> bits(x.size());
  std::transform(x.begin(), x.end(), bits.begin(),
                 [](float v) { return std::bit_cast<uint32_t>(v); });
  return bits;
}

}  // namespace crumb::test

#include "kernels/pack.h"

#include <algorithm>
#include <cassert>
#include <cstddef>

#include "kernels/float16.h"

namespace crumb::kernels {
namespace {

std::size_t as_size(int64_t n) { return static_cast<std::size_t>(n); }

// Four columns from a multiple of four on lie in neighbouring bytes, at the same bits.
constexpr int64_t kNeighbours = 4;

// A run of columns that share a scale. `place` of column k is that of the whole step of four.
void dequantize_run(const PackedMatrix& w, const uint8_t* strip, int64_t row, int64_t begin,
                    int64_t end, float scale, int zero2, float* out) {
  const int mask = (1 << (w.bits == 3 ? 2 : w.bits)) - 1;
  for (int64_t k = begin; k < end; k += kNeighbours) {
    const CodePlace place = code_place(w.bits, row, k);
    const int64_t count = std::min(kNeighbours, end - k);
    for (int64_t i = 0; i < count; ++i) {
      int code = (strip[place.byte + i] >> place.shift) & mask;
      if (place.high_byte >= 0) code |= ((strip[place.high_byte + i] >> place.high_shift) & 1) << 2;
      out[k + i] = scale * (0.5f * static_cast<float>(2 * code - zero2));
    }
  }
}

template <class Value>
void pack_group_values(std::span<const Value> values, int64_t N, int64_t groups, Value pad,
                       std::span<Value> packed) {
  assert(values.size() == as_size(N * groups));
  assert(packed.size() == as_size(strip_count(N) * groups * kStripRows));
  std::fill(packed.begin(), packed.end(), pad);
  for (int64_t n = 0; n < N; ++n) {
    const int64_t first = n / kStripRows * groups * kStripRows + n % kStripRows;
    for (int64_t g = 0; g < groups; ++g) {
      packed[as_size(first + g * kStripRows)] = values[as_size(n * groups + g)];
    }
  }
}

}  // namespace

void pack_codes(std::span<const uint8_t> codes, int64_t N, int64_t K, int bits,
                std::span<uint8_t> packed) {
  assert(valid_bits(bits) && N >= 0 && K > 0 && K <= kMaxColumns);
  assert(codes.size() == as_size(N * K));
  assert(packed.size() == as_size(strip_count(N) * strip_code_bytes(K, bits)));
  std::fill(packed.begin(), packed.end(), uint8_t{0});
  for (int64_t n = 0; n < N; ++n) {
    uint8_t* strip = packed.data() + n / kStripRows * strip_code_bytes(K, bits);
    for (int64_t k = 0; k < K; k += kNeighbours) {
      const CodePlace place = code_place(bits, n % kStripRows, k);
      const int64_t count = std::min(kNeighbours, K - k);
      for (int64_t i = 0; i < count; ++i) {
        const uint32_t code = codes[as_size(n * K + k + i)];
        assert(code < (1u << bits));
        const uint32_t low = place.high_byte < 0 ? code : code & 3u;
        uint8_t& byte = strip[place.byte + i];
        byte = static_cast<uint8_t>(byte | (low << place.shift));
        if (place.high_byte < 0) continue;
        uint8_t& high = strip[place.high_byte + i];
        high = static_cast<uint8_t>(high | ((code >> 2) << place.high_shift));
      }
    }
  }
}

int unpack_code(const PackedMatrix& w, int64_t n, int64_t k) {
  assert(n >= 0 && n < w.rows && k >= 0 && k < w.cols);
  const uint8_t* strip = w.codes + n / kStripRows * strip_code_bytes(w.cols, w.bits);
  const CodePlace place = code_place(w.bits, n % kStripRows, k);
  if (place.high_byte < 0) return (strip[place.byte] >> place.shift) & ((1 << w.bits) - 1);
  const int low = (strip[place.byte] >> place.shift) & 3;
  return low | (((strip[place.high_byte] >> place.high_shift) & 1) << 2);
}

void pack_groups(std::span<const uint16_t> values, int64_t N, int64_t groups, uint16_t pad,
                 std::span<uint16_t> packed) {
  pack_group_values<uint16_t>(values, N, groups, pad, packed);
}

void pack_groups(std::span<const uint8_t> values, int64_t N, int64_t groups, uint8_t pad,
                 std::span<uint8_t> packed) {
  pack_group_values<uint8_t>(values, N, groups, pad, packed);
}

void dequantize_row(const PackedMatrix& w, int64_t n, std::span<float> out) {
  assert(out.size() == as_size(w.cols));
  const int64_t groups = group_count(w.cols, w.group);
  const int64_t row = n % kStripRows;
  const uint8_t* strip = w.codes + n / kStripRows * strip_code_bytes(w.cols, w.bits);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t at = (n / kStripRows * groups + g) * kStripRows + row;
    const int zero2 = w.grid == Grid::kAsym ? 2 * w.zeros[at] : grid_zero2(w.grid, w.bits);
    dequantize_run(w, strip, row, g * w.group, std::min(w.cols, (g + 1) * w.group),
                   f16_to_f32(w.scales[at]), zero2, out.data());
  }
}

}  // namespace crumb::kernels

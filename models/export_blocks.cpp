#include "models/export_blocks.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "kernels/float16.h"
#include "kernels/pack.h"
#include "models/checkpoint.h"

namespace crumb::models {
namespace {

using kernels::Grid;
using kernels::PackedMatrix;

constexpr int kBlock = 32;
constexpr int kSuper = 256;

// A type whose weights are d * n, n from `low` on.
struct PlainType {
  std::string_view name;
  int low, high;
};
constexpr PlainType kPlainTypes[] = {{"Q4_0", -8, 7}, {"Q5_0", -16, 15}, {"Q8_0", -128, 127}};

const BlockType* type_named(std::string_view name) {
  for (const BlockType& type : block_types())
    if (type.name == name) return &type;
  return nullptr;
}

// The middle of the mid-rise grid lies between two codes: its n are odd.
bool has_halves(const PackedMatrix& band) { return band.grid == Grid::kSeq; }

// The largest and smallest n that the grid has.
std::pair<int, int> range_of(const PackedMatrix& band) {
  const int codes = (1 << band.bits) - 1;
  if (band.grid == Grid::kAsym) return {-codes, codes};
  if (band.grid == Grid::kSeq) return {-codes, codes};
  return {-(1 << (band.bits - 1)), codes - (1 << (band.bits - 1))};
}

int64_t scale_index(const PackedMatrix& band, int64_t n, int64_t k) {
  const int64_t groups = kernels::group_count(band.cols, band.group);
  return (n / kernels::kStripRows * groups + k / band.group) * kernels::kStripRows +
         n % kernels::kStripRows;
}

int zero2_of(const PackedMatrix& band, int64_t n, int64_t k) {
  return band.grid == Grid::kAsym ? 2 * band.zeros[scale_index(band, n, k)]
                                  : kernels::grid_zero2(band.grid, band.bits);
}

uint16_t half_of(uint16_t scale) { return kernels::f32_to_f16(kernels::f16_to_f32(scale) / 2); }

bool halves_are_exact(const PackedMatrix& band) {
  const int64_t count = kernels::strip_count(band.rows) *
                        kernels::group_count(band.cols, band.group) * kernels::kStripRows;
  return std::all_of(band.scales, band.scales + count, [](uint16_t scale) {
    return kernels::f16_to_f32(half_of(scale)) * 2 == kernels::f16_to_f32(scale);
  });
}

bool holds(const PlainType& type, const PackedMatrix& band) {
  const auto [low, high] = range_of(band);
  return low >= type.low && high <= type.high && (!has_halves(band) || halves_are_exact(band));
}

bool holds_q2_k(const PackedMatrix& band) {
  return band.bits == 2 && band.group == band.cols && band.cols % kSuper == 0 &&
         halves_are_exact(band);
}

bool has_blocks(const MatrixView& matrix) {
  return !matrix.bands.empty() && matrix.rotation.hadamard == 0 &&
         matrix.bands.front().cols % kBlock == 0;
}

void put16(uint8_t* out, uint16_t value) { std::memcpy(out, &value, sizeof value); }

// The block's codes, and scale and zero2 of its group.
struct Codes {
  uint16_t scale = 0;
  int zero2 = 0;
  std::array<int, kSuper> code = {};
};
Codes codes_of(const PackedMatrix& band, int64_t n, int64_t k, int count) {
  Codes codes{band.scales[scale_index(band, n, k)], zero2_of(band, n, k), {}};
  for (int i = 0; i < count; ++i)
    codes.code[static_cast<std::size_t>(i)] = kernels::unpack_code(band, n, k + i);
  return codes;
}

// Weight i and i + 16 share a byte; the fifth bits are 32 more.
void put_nibbles(const std::array<int, kBlock>& q, uint8_t* out) {
  for (std::size_t i = 0; i < kBlock / 2; ++i)
    out[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + kBlock / 2] & 15) << 4);
}

void put_plain(const PackedMatrix& band, const Codes& codes, const PlainType& type, uint8_t* out) {
  put16(out, has_halves(band) ? half_of(codes.scale) : codes.scale);
  std::array<int, kBlock> q{};
  for (std::size_t i = 0; i < kBlock; ++i) {
    const int n = 2 * codes.code[i] - codes.zero2;
    q[i] = has_halves(band) ? n : n / 2;
    if (type.name != "Q8_0") q[i] -= type.low;
  }
  if (type.name == "Q8_0") {
    for (std::size_t i = 0; i < kBlock; ++i) out[2 + i] = static_cast<uint8_t>(q[i]);
  } else if (type.name == "Q5_0") {
    uint32_t fifth = 0;
    for (std::size_t i = 0; i < kBlock; ++i) fifth |= static_cast<uint32_t>(q[i] >> 4 & 1) << i;
    std::memcpy(out + 2, &fifth, sizeof fifth);
    put_nibbles(q, out + 6);
  } else {
    put_nibbles(q, out + 2);
  }
}

void put_q4_1(const Codes& codes, uint8_t* out) {
  const float scale = kernels::f16_to_f32(codes.scale);
  put16(out, codes.scale);
  put16(out + 2, kernels::f32_to_f16(-scale * static_cast<float>(codes.zero2) / 2));
  std::array<int, kBlock> q{};
  std::copy_n(codes.code.begin(), kBlock, q.begin());
  put_nibbles(q, out + 4);
}

// 16 bytes of scales (2, low) and minima (zero2, high); codes of 32 columns in two bits of each
// byte; d, dmin.
void put_q2_k(const Codes& codes, uint8_t* out) {
  std::fill_n(out, 16, static_cast<uint8_t>(2 | codes.zero2 << 4));
  std::fill_n(out + 16, kSuper / 4, uint8_t{0});
  for (std::size_t i = 0; i < kSuper; ++i)
    out[16 + i / 128 * 32 + i % 32] |= static_cast<uint8_t>(codes.code[i] << (i % 128 / 32 * 2));
  put16(out + 80, half_of(codes.scale));
  put16(out + 82, half_of(codes.scale));
}

}  // namespace

const BlockType* exact_block_type(const MatrixView& matrix) {
  if (!has_blocks(matrix)) return nullptr;
  const auto all = [&](const auto& holds_band) {
    return std::all_of(matrix.bands.begin(), matrix.bands.end(), holds_band);
  };
  if (all(holds_q2_k)) return type_named("Q2_K");
  for (const PlainType& type : kPlainTypes)
    if (all([&](const PackedMatrix& band) { return holds(type, band); }))
      return type_named(type.name);
  return nullptr;
}

bool fits_q4_1(const MatrixView& matrix) {
  return has_blocks(matrix) && std::all_of(matrix.bands.begin(), matrix.bands.end(),
                                           [](const PackedMatrix& band) { return band.bits <= 4; });
}

void write_block_row(const MatrixView& matrix, int64_t n, const BlockType& type,
                     std::span<uint8_t> out) {
  auto band = matrix.bands.begin();
  for (; n >= band->rows; ++band) n -= band->rows;
  const PlainType* plain = std::find_if(std::begin(kPlainTypes), std::end(kPlainTypes),
                                        [&](const PlainType& t) { return t.name == type.name; });
  uint8_t* block = out.data();
  for (int64_t k = 0; k < band->cols; k += type.values, block += type.bytes) {
    const Codes codes = codes_of(*band, n, k, static_cast<int>(type.values));
    if (plain != std::end(kPlainTypes))
      put_plain(*band, codes, *plain, block);
    else if (type.name == "Q4_1")
      put_q4_1(codes, block);
    else
      put_q2_k(codes, block);
  }
  assert(block == out.data() + out.size());
}

}  // namespace crumb::models

#include "models/gguf_blocks.h"

#include <bit>
#include <cstring>

#include "kernels/float16.h"

namespace crumb::models {
namespace {

// q: the integer of a weight; d, m: scale and minimum in binary16; a "super-block" has kSuper
// weights.
constexpr int kBlock = 32;
constexpr int kSuper = 256;

constexpr int64_t kHalf = 2;                                // bytes of a binary16
constexpr int64_t kQ4_0Bytes = kHalf + kBlock / 2;          // d, 4-bit
constexpr int64_t kQ4_1Bytes = 2 * kHalf + kBlock / 2;      // d, m, 4-bit
constexpr int64_t kQ5_0Bytes = kHalf + 4 + kBlock / 2;      // d, fifth bits, 4-bit
constexpr int64_t kQ5_1Bytes = 2 * kHalf + 4 + kBlock / 2;  // d, m, fifth bits, 4-bit
constexpr int64_t kQ8_0Bytes = kHalf + kBlock;              // d, int8
constexpr int64_t kIQ4NLBytes = kQ4_0Bytes;                 // d, 4-bit
constexpr int64_t kQ2KBytes = 16 + kSuper / 4 + 2 * kHalf;  // 4+4-bit scales, 2-bit, d, dmin
constexpr int64_t kQ3KBytes = kSuper / 8 + kSuper / 4 + 12 + kHalf;  // third bits, 2-bit, scales, d
constexpr int64_t kQ4KBytes = 2 * kHalf + 12 + kSuper / 2;           // d, dmin, scales, 4-bit
constexpr int64_t kQ5KBytes =
    2 * kHalf + 12 + kSuper / 8 + kSuper / 2;  // d, dmin, scales, fifth bits, 4-bit
constexpr int64_t kQ6KBytes =
    kSuper / 2 + kSuper / 4 + kSuper / 16 + kHalf;           // 4-bit, 2-bit, scales, d
constexpr int64_t kQ8KBytes = 4 + kSuper + kSuper / 16 * 2;  // d in binary32, int8, sums of 16
static_assert(kQ4_0Bytes == 18 && kQ4_1Bytes == 20 && kQ5_0Bytes == 22 && kQ5_1Bytes == 24 &&
              kQ8_0Bytes == 34);
static_assert(kQ2KBytes == 84 && kQ3KBytes == 110 && kQ4KBytes == 144 && kQ5KBytes == 176 &&
              kQ6KBytes == 210 && kQ8KBytes == 292);

uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
float half(const uint8_t* p) { return kernels::f16_to_f32(load16(p)); }
uint32_t load32(const uint8_t* p) { return load16(p) | static_cast<uint32_t>(load16(p + 2)) << 16; }

void f32(const uint8_t* in, int64_t blocks, float* out) noexcept {
  std::memcpy(out, in, static_cast<std::size_t>(blocks) * sizeof(float));
}
void f16(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (int64_t i = 0; i < blocks; ++i) out[i] = half(in + 2 * i);
}
void bf16(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (int64_t i = 0; i < blocks; ++i) out[i] = kernels::bf16_to_f32(load16(in + 2 * i));
}

// w = d * (q - 8); the low nibbles are weights 0..15, the high ones 16..31.
void q4_0(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ4_0Bytes, out += kBlock) {
    const float d = half(in);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>((in[2 + j] & 15) - 8);
      out[j + 16] = d * static_cast<float>((in[2 + j] >> 4) - 8);
    }
  }
}

// w = d * q + m.
void q4_1(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ4_1Bytes, out += kBlock) {
    const float d = half(in), m = half(in + 2);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>(in[4 + j] & 15) + m;
      out[j + 16] = d * static_cast<float>(in[4 + j] >> 4) + m;
    }
  }
}

// Weight j's fifth bit is bit j of a 32-bit word.
int fifth(uint32_t bits, int j) { return static_cast<int>(bits >> j & 1) << 4; }

// w = d * (q - 16).
void q5_0(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ5_0Bytes, out += kBlock) {
    const float d = half(in);
    const uint32_t high = load32(in + 2);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>(((in[6 + j] & 15) | fifth(high, j)) - 16);
      out[j + 16] = d * static_cast<float>(((in[6 + j] >> 4) | fifth(high, j + 16)) - 16);
    }
  }
}

// w = d * q + m.
void q5_1(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ5_1Bytes, out += kBlock) {
    const float d = half(in), m = half(in + 2);
    const uint32_t high = load32(in + 4);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>((in[8 + j] & 15) | fifth(high, j)) + m;
      out[j + 16] = d * static_cast<float>((in[8 + j] >> 4) | fifth(high, j + 16)) + m;
    }
  }
}

// w = d * q.
void q8_0(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ8_0Bytes, out += kBlock) {
    const float d = half(in);
    for (int j = 0; j < kBlock; ++j)
      out[j] = d * static_cast<float>(static_cast<int8_t>(in[2 + j]));
  }
}

// 16 sub-blocks of 16: w = (d * scale) * q - dmin * minimum, scale and minimum in one byte.
void q2_k(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ2KBytes, out += kSuper) {
    const uint8_t* scales = in;
    const uint8_t* codes = in + 16;
    const float d = half(in + 80), dmin = half(in + 82);
    for (int sub = 0; sub < 16; ++sub) {
      // 32 bytes hold 128 weights, 2 bits a "plane" of 32: sub-blocks 2p and 2p + 1 of a half.
      const int shift = sub % 8 / 2 * 2;
      const uint8_t* q = codes + sub / 8 * 32 + sub % 2 * 16;
      const float scale = d * static_cast<float>(scales[sub] & 15);
      const float minimum = dmin * static_cast<float>(scales[sub] >> 4);
      for (int j = 0; j < 16; ++j)
        out[16 * sub + j] = scale * static_cast<float>(q[j] >> shift & 3) - minimum;
    }
  }
}

// 16 sub-blocks of 16: w = d * (scale - 32) * (q - 4), the third bit of q inverted in sign.
void q3_k(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ3KBytes, out += kSuper) {
    const uint8_t* high = in;
    const uint8_t* codes = in + 32;
    const uint8_t* packed = in + 96;
    const float d = half(in + 108);
    for (int sub = 0; sub < 16; ++sub) {
      // 6-bit scales: the low four bits in bytes 0..7 (nibbles), the high two in bytes 8..11.
      const int low = packed[sub % 8] >> (sub / 8 * 4) & 15;
      const int top = packed[8 + sub % 4] >> (sub / 4 * 2) & 3;
      const float scale = d * static_cast<float>((low | top << 4) - 32);
      const int shift = sub % 8 / 2 * 2;
      const int high_bit = sub / 2;
      const uint8_t* q = codes + sub / 8 * 32 + sub % 2 * 16;
      const uint8_t* h = high + sub % 2 * 16;
      for (int j = 0; j < 16; ++j) {
        const int value = (q[j] >> shift & 3) - ((h[j] >> high_bit & 1) != 0 ? 0 : 4);
        out[16 * sub + j] = scale * static_cast<float>(value);
      }
    }
  }
}

// The 6-bit scale and minimum of sub-block `sub` (0..7) out of 12 bytes, for Q4_K and Q5_K.
struct ScaleMin {
  int scale, minimum;
};
ScaleMin scale_min(const uint8_t* packed, int sub) {
  if (sub < 4) return {packed[sub] & 63, packed[sub + 4] & 63};
  return {(packed[sub + 4] & 15) | (packed[sub - 4] >> 6) << 4,
          packed[sub + 4] >> 4 | (packed[sub] >> 6) << 4};
}

// 8 sub-blocks of 32: w = (d * scale) * q - dmin * minimum; 32 bytes hold two sub-blocks.
void q4_k(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ4KBytes, out += kSuper) {
    const float d = half(in), dmin = half(in + 2);
    for (int sub = 0; sub < 8; ++sub) {
      const auto [scale6, min6] = scale_min(in + 4, sub);
      const float scale = d * static_cast<float>(scale6), minimum = dmin * static_cast<float>(min6);
      const uint8_t* q = in + 16 + sub / 2 * 32;
      const int shift = sub % 2 * 4;
      for (int j = 0; j < 32; ++j)
        out[32 * sub + j] = scale * static_cast<float>(q[j] >> shift & 15) - minimum;
    }
  }
}

// As Q4_K with a fifth bit: bit `sub` of byte j.
void q5_k(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ5KBytes, out += kSuper) {
    const float d = half(in), dmin = half(in + 2);
    const uint8_t* high = in + 16;
    for (int sub = 0; sub < 8; ++sub) {
      const auto [scale6, min6] = scale_min(in + 4, sub);
      const float scale = d * static_cast<float>(scale6), minimum = dmin * static_cast<float>(min6);
      const uint8_t* q = in + 48 + sub / 2 * 32;
      const int shift = sub % 2 * 4;
      for (int j = 0; j < 32; ++j) {
        const int value = (q[j] >> shift & 15) | (high[j] >> sub & 1) << 4;
        out[32 * sub + j] = scale * static_cast<float>(value) - minimum;
      }
    }
  }
}

// 16 sub-blocks of 16 with int8 scales: w = (d * scale) * (q - 32).
void q6_k(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ6KBytes, out += kSuper) {
    const uint8_t* scales = in + 192;
    const float d = half(in + 208);
    for (int i = 0; i < kSuper; ++i) {
      const int part = i / 128, j = i % 128;  // 64 low and 32 high bytes a part
      const int low = in[part * 64 + j % 64] >> (j / 64 * 4) & 15;
      const int top = in[128 + part * 32 + j % 32] >> (j / 32 * 2) & 3;
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[i / 16]));
      out[i] = scale * static_cast<float>((low | top << 4) - 32);
    }
  }
}

// As Q8_0 with a scale in binary32. The sums serve dot products and say nothing new.
void q8_k(const uint8_t* in, int64_t blocks, float* out) noexcept {
  for (; blocks > 0; --blocks, in += kQ8KBytes, out += kSuper) {
    const float d = std::bit_cast<float>(load32(in));
    for (int i = 0; i < kSuper; ++i)
      out[i] = d * static_cast<float>(static_cast<int8_t>(in[4 + i]));
  }
}

// As Q4_0, but the 16 values lie closer together around zero.
void iq4_nl(const uint8_t* in, int64_t blocks, float* out) noexcept {
  constexpr int8_t kValues[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};
  for (; blocks > 0; --blocks, in += kIQ4NLBytes, out += kBlock) {
    const float d = half(in);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>(kValues[in[2 + j] & 15]);
      out[j + 16] = d * static_cast<float>(kValues[in[2 + j] >> 4]);
    }
  }
}

constexpr BlockType kTypes[] = {
    {0, "F32", 1, 4, f32},
    {1, "F16", 1, 2, f16},
    {2, "Q4_0", kBlock, kQ4_0Bytes, q4_0},
    {3, "Q4_1", kBlock, kQ4_1Bytes, q4_1},
    {6, "Q5_0", kBlock, kQ5_0Bytes, q5_0},
    {7, "Q5_1", kBlock, kQ5_1Bytes, q5_1},
    {8, "Q8_0", kBlock, kQ8_0Bytes, q8_0},
    {10, "Q2_K", kSuper, kQ2KBytes, q2_k},
    {11, "Q3_K", kSuper, kQ3KBytes, q3_k},
    {12, "Q4_K", kSuper, kQ4KBytes, q4_k},
    {13, "Q5_K", kSuper, kQ5KBytes, q5_k},
    {14, "Q6_K", kSuper, kQ6KBytes, q6_k},
    {15, "Q8_K", kSuper, kQ8KBytes, q8_k},
    {20, "IQ4_NL", kBlock, kIQ4NLBytes, iq4_nl},
    {30, "BF16", 1, 2, bf16},
};

}  // namespace

std::span<const BlockType> block_types() { return kTypes; }

const BlockType* find_block_type(uint32_t id) {
  for (const BlockType& type : kTypes)
    if (type.id == id) return &type;
  return nullptr;
}

}  // namespace crumb::models

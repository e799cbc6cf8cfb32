// The block formats of GGUF tensors and their decoding to float. One table; written from the
// formats' definition (ggml's documentation of the quantization types), compared with the `gguf`
// Python package.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

namespace crumb::models {

struct BlockType {
  uint32_t id;            // number in the file
  std::string_view name;  // "Q4_1"
  int64_t values;         // weights a block
  int64_t bytes;          // bytes a block
  // in [blocks, bytes] -> out [blocks, values].
  void (*dequantize)(const uint8_t* in, int64_t blocks, float* out) noexcept;
};

std::span<const BlockType> block_types();
// nullptr if the number is unknown or unsupported.
const BlockType* find_block_type(uint32_t id);

}  // namespace crumb::models

// GGUF version 2 and 3, little-endian: structure only. What the keys and tensors mean is
// import_gguf.cpp's.
//
// Stricter than the format where laxness only helps an attacker: duplicate keys or tensors, nested
// arrays, overlapping tensors, gaps of an alignment unit or more, and bytes after the last tensor
// are refused.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/gguf_blocks.h"

namespace crumb::models {

enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// A metadata value as a view of the file.
struct GgufValue {
  GgufType type = GgufType::kU8;  // of the elements, if is_array
  bool is_array = false;
  uint64_t count = 1;
  // Little-endian numbers; the text of one string; for an array of strings (u64 length, text) each.
  std::span<const uint8_t> bytes;
};

struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;  // outermost first (the file has the opposite order)
  const BlockType* type = nullptr;
  std::span<const uint8_t> data;
};

// A parsed file; views into `bytes`, which must outlive it. Every check of structure is done by the
// constructor: FormatError names file, place, expected and found.
class GgufFile {
 public:
  GgufFile(std::span<const uint8_t> bytes, std::string file);

  const std::string& file() const { return file_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  bool has(const std::string& key) const { return values_.contains(key); }

  // Typed access: nullopt if the key is absent, FormatError if it has another type or does not fit.
  std::optional<int64_t> integer(const std::string& key) const;  // any integer type
  std::optional<float> real(const std::string& key) const;       // F32 or F64
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;  // valid UTF-8
  // Arrays of at most max_count elements.
  std::optional<std::vector<std::string_view>> strings(const std::string& key,
                                                       uint64_t max_count) const;
  std::optional<std::vector<int32_t>> integers(const std::string& key,
                                               uint64_t max_count) const;  // I32 or U32
  std::optional<std::vector<float>> reals(const std::string& key, uint64_t max_count) const;  // F32
  std::optional<std::string> bytes(const std::string& key, uint64_t max_count) const;  // U8 or I8

  [[noreturn]] void fail(const std::string& key, const std::string& expected,
                         const std::string& found) const;

 private:
  const GgufValue* find(const std::string& key) const;
  const GgufValue* find_array(const std::string& key, uint64_t max_count) const;

  std::string file_;
  std::map<std::string, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace crumb::models

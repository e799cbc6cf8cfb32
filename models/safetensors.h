// The safetensors container: 8-byte header length, JSON header, tensor data. Structure only.
//
// The format's published rules, to the letter: header at most 100 MB and starting with '{', no
// duplicate keys, metadata of strings only, every size equal to shape * dtype, data without holes
// or overlap, covering the rest of the file. The JSON is read event by event: no tree, no
// recursion, and anything but the three fields of a tensor is an error, so depth and memory are
// bounded by construction.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::models {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

struct Dtype {
  std::string_view name;  // "F16"
  int64_t bytes;
};
// nullptr for a name that is not allowed.
const Dtype* find_dtype(std::string_view name);

struct SafetensorsEntry {
  std::string name;
  const Dtype* dtype = nullptr;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // in the data
};

// Views into the bytes given to parse_safetensors.
struct Safetensors {
  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsEntry> tensors;  // in data order
  std::string_view header;                // the JSON text with its padding
  std::span<const uint8_t> data;
};

// FormatError names file, tensor, expected and found. max_header: at most kMaxSafetensorsHeader.
Safetensors parse_safetensors(std::span<const uint8_t> bytes, const std::string& file,
                              uint64_t max_header = kMaxSafetensorsHeader);

}  // namespace crumb::models

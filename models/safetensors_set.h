// The *.safetensors of a folder as one set of tensors: model.safetensors, or the shards that
// model.safetensors.index.json names.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/mapped_file.h"
#include "models/safetensors.h"

namespace crumb::models {

struct StoredArray {
  const Dtype* dtype = nullptr;
  std::vector<int64_t> shape;
  std::span<const uint8_t> data;
};

// F32, F16 or BF16.
bool is_float(const StoredArray& array);
// Row `row` of an array of floats, out.size() values each, as floats.
void read_row(const StoredArray& array, int64_t row, std::span<float> out);

class SafetensorsSet {
 public:
  // FormatError: neither file is there, a damaged one, a shard that the index names twice or that
  // leads out of the folder, a tensor in two shards. IoError.
  explicit SafetensorsSet(const std::string& folder);

  const std::map<std::string, StoredArray, std::less<>>& tensors() const { return tensors_; }
  uint64_t file_bytes() const { return file_bytes_; }
  std::string hash() const;  // xxh3-128 of the files' own, in the order of their names

 private:
  void add(const std::string& path);

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, StoredArray, std::less<>> tensors_;
  uint64_t file_bytes_ = 0;
};

}  // namespace crumb::models

#include "models/safetensors_set.h"

#include <filesystem>
#include <set>

#include "kernels/float16.h"
#include "models/byte_reader.h"
#include "models/errors.h"
#include "models/import.h"
#include "models/json_text.h"
#include "models/text.h"

namespace crumb::models {
namespace {

constexpr int64_t kMaxIndexBytes = 64 << 20;
constexpr std::size_t kMaxShards = 1000;

// The file names in an index, each once, in order.
std::set<std::string> shards_of(const std::string& index) {
  const JsonPlace place{index, "index"};
  const std::string text = read_text(index, kMaxIndexBytes);
  const nlohmann::json json =
      parse_json_object(text, place, static_cast<std::size_t>(kMaxIndexBytes));
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) json_fail(place, "weight_map", "an object", "none");
  std::set<std::string> shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) json_fail(place, "weight_map", "names of files", file.type_name());
    const auto name = file.get<std::string>();
    if (name.empty() || name.front() == '.' || name.find_first_of("/\\\0", 0, 3) != name.npos)
      json_fail(place, "weight_map", "a file of the same folder", printable(name));
    shards.insert(name);
    if (shards.size() > kMaxShards)
      json_fail(place, "weight_map", "at most " + std::to_string(kMaxShards) + " files", "more");
  }
  return shards;
}

}  // namespace

SafetensorsSet::SafetensorsSet(const std::string& folder) {
  const std::filesystem::path root(folder);
  const auto index = root / "model.safetensors.index.json";
  if (std::filesystem::exists(root / "model.safetensors")) {
    add((root / "model.safetensors").string());
  } else if (std::filesystem::exists(index)) {
    for (const std::string& shard : shards_of(index.string())) add((root / shard).string());
  } else {
    throw FormatError(
        "no weights (" + folder +
        ": expected model.safetensors or model.safetensors.index.json, found neither)");
  }
}

void SafetensorsSet::add(const std::string& path) {
  files_.push_back(std::make_unique<MappedFile>(path));
  const auto bytes = files_.back()->bytes();
  const Safetensors container = parse_safetensors(bytes, path);
  for (const SafetensorsEntry& entry : container.tensors) {
    const auto data = container.data.subspan(entry.begin, entry.end - entry.begin);
    if (!tensors_.emplace(entry.name, StoredArray{entry.dtype, entry.shape, data}).second)
      throw FormatError("tensor twice (" + path + ": expected each tensor in one file, found " +
                        printable(entry.name) + " again)");
  }
  file_bytes_ += bytes.size();
}

std::string SafetensorsSet::hash() const {
  std::string all;
  for (const auto& file : files_) all += content_hash(file->bytes());
  return files_.size() == 1
             ? all
             : content_hash({reinterpret_cast<const uint8_t*>(all.data()), all.size()});
}

bool is_float(const StoredArray& array) {
  return array.dtype->name == "F32" || array.dtype->name == "F16" || array.dtype->name == "BF16";
}

void read_row(const StoredArray& array, int64_t row, std::span<float> out) {
  const auto bytes = static_cast<uint64_t>(array.dtype->bytes) * out.size();
  ByteReader in(array.data.subspan(static_cast<std::size_t>(row) * bytes, bytes), "tensor");
  for (float& value : out) {
    if (array.dtype->name == "F32")
      value = in.read<float>("value");
    else if (array.dtype->name == "F16")
      value = kernels::f16_to_f32(in.read<uint16_t>("value"));
    else
      value = kernels::bf16_to_f32(in.read<uint16_t>("value"));
  }
}

}  // namespace crumb::models

#include "models/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "models/byte_reader.h"
#include "models/errors.h"
#include "models/text.h"

namespace crumb::models {
namespace {

static_assert(std::endian::native == std::endian::little, "file formats are read in place");

constexpr uint64_t kMaxString = 16u << 20;
constexpr uint64_t kMaxArray = 64u << 20;
constexpr uint64_t kMaxKey = 65535;
constexpr uint64_t kMaxTensorName = 1024;
constexpr uint32_t kMaxDims = 4;
constexpr uint32_t kDefaultAlignment = 32, kMinAlignment = 8, kMaxAlignment = 65536;
// Smallest records: key (length, one byte), type, one-byte value; name likewise, dims, type,
// offset.
constexpr uint64_t kMinValueRecord = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorRecord = 8 + 1 + 4 + 8 + 4 + 8;

struct TypeInfo {
  const char* name;
  uint64_t bytes;  // 0: variable
};
constexpr TypeInfo kTypes[] = {{"u8", 1},  {"i8", 1},  {"u16", 2},  {"i16", 2},    {"u32", 4},
                               {"i32", 4}, {"f32", 4}, {"bool", 1}, {"string", 0}, {"array", 0},
                               {"u64", 8}, {"i64", 8}, {"f64", 8}};

const TypeInfo& info(GgufType type) { return kTypes[static_cast<uint32_t>(type)]; }

std::string type_name(const GgufValue& value) {
  return value.is_array ? "an array of " + std::string(info(value.type).name)
                        : info(value.type).name;
}

GgufType read_type(ByteReader& in, const std::string& what) {
  const auto number = in.read<uint32_t>(what);
  if (number >= std::size(kTypes)) in.fail("type of " + what, "0..12", std::to_string(number));
  return static_cast<GgufType>(number);
}

std::string_view read_string(ByteReader& in, uint64_t limit, std::string_view what) {
  const auto size = in.read<uint64_t>(what);
  if (size > limit)
    in.fail(what, "at most " + std::to_string(limit) + " bytes", std::to_string(size));
  return in.text(size, what);
}

GgufValue read_array(ByteReader& in, std::span<const uint8_t> file, const std::string& what) {
  GgufValue value;
  value.is_array = true;
  value.type = read_type(in, what);
  if (value.type == GgufType::kArray) in.fail(what, "an array of plain values", "a nested array");
  value.count = in.read<uint64_t>(what);
  if (value.count > kMaxArray)
    in.fail(what, "at most " + std::to_string(kMaxArray) + " elements",
            std::to_string(value.count));
  if (value.type != GgufType::kString) {
    value.bytes =
        in.take(checked_mul(value.count, info(value.type).bytes, what + " of " + in.file()), what);
    return value;
  }
  in.require_count(value.count, sizeof(uint64_t), what);
  const uint64_t begin = in.offset();
  for (uint64_t i = 0; i < value.count; ++i) read_string(in, kMaxString, what);
  value.bytes = file.subspan(begin, in.offset() - begin);
  return value;
}

GgufValue read_value(ByteReader& in, std::span<const uint8_t> file, const std::string& what) {
  GgufValue value;
  value.type = read_type(in, what);
  if (value.type == GgufType::kArray) return read_array(in, file, what);
  if (value.type == GgufType::kString) {
    const auto text = read_string(in, kMaxString, what);
    value.bytes = file.subspan(in.offset() - text.size(), text.size());
  } else {
    value.bytes = in.take(info(value.type).bytes, what);
  }
  return value;
}

template <class T>
T load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// A tensor before its data is looked up.
struct Record {
  GgufTensor tensor;
  uint64_t offset = 0, bytes = 0;
};

Record read_tensor_record(ByteReader& in, uint64_t alignment) {
  Record record;
  GgufTensor& tensor = record.tensor;
  tensor.name = read_string(in, kMaxTensorName, "tensor name");
  const std::string what = "tensor " + printable(tensor.name);
  if (tensor.name.empty()) in.fail("tensor name", "some text", "nothing");
  const auto dims = in.read<uint32_t>(what);
  if (dims < 1 || dims > kMaxDims) in.fail("dimensions of " + what, "1..4", std::to_string(dims));
  uint64_t count = 1;
  for (uint32_t i = 0; i < dims; ++i) {
    const auto dim = in.read<uint64_t>(what);
    if (dim < 1 || dim > static_cast<uint64_t>(INT64_MAX))
      in.fail("dimension of " + what, "1..2^63-1", std::to_string(dim));
    count = checked_mul(count, dim, what + " of " + in.file());
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(dim));
  }
  const auto type = in.read<uint32_t>(what);
  tensor.type = find_block_type(type);
  if (tensor.type == nullptr) {
    std::string known;
    for (const BlockType& t : block_types())
      known += (known.empty() ? "" : ", ") + std::string(t.name);
    in.fail("type of " + what, "one of " + known, "type number " + std::to_string(type));
  }
  const auto values = static_cast<uint64_t>(tensor.type->values);
  if (static_cast<uint64_t>(tensor.shape.back()) % values != 0)
    in.fail("row of " + what,
            "a multiple of " + std::to_string(values) + " (" + std::string(tensor.type->name) + ")",
            std::to_string(tensor.shape.back()));
  record.bytes = checked_mul(count / values, static_cast<uint64_t>(tensor.type->bytes),
                             what + " of " + in.file());
  record.offset = in.read<uint64_t>(what);
  if (record.offset % alignment != 0)
    in.fail("offset of " + what, "a multiple of " + std::to_string(alignment),
            std::to_string(record.offset));
  return record;
}

void read_header(ByteReader& in) {
  if (in.text(4, "magic") != "GGUF") in.fail("magic", "GGUF", "other bytes");
  const auto version = in.read<uint32_t>("version");
  if (version == __builtin_bswap32(2) || version == __builtin_bswap32(3))
    in.fail("byte order", "little-endian", "big-endian");
  if (version != 2 && version != 3) in.fail("version", "2 or 3", std::to_string(version));
}

// Gives every tensor its bytes, in file order: inside the file, no overlap, no hole, nothing after
// the last.
void place_tensors(ByteReader& in, std::span<const uint8_t> data, uint64_t alignment,
                   std::vector<Record>& records) {
  std::vector<Record*> order;
  for (Record& record : records) order.push_back(&record);
  std::sort(order.begin(), order.end(),
            [](const Record* a, const Record* b) { return a->offset < b->offset; });
  uint64_t end = 0;
  for (Record* record : order) {
    const std::string what = "data of tensor " + printable(record->tensor.name);
    if (record->offset < end)
      in.fail(what, "offset at or after " + std::to_string(end),
              std::to_string(record->offset) + " (overlap)");
    if (record->offset - end >= alignment)
      in.fail(what, "no hole before it", std::to_string(record->offset - end) + " unused bytes");
    end = checked_add(record->offset, record->bytes, what + " of " + in.file());
    if (end > data.size())
      in.fail(what, std::to_string(end) + " bytes of tensor data", std::to_string(data.size()),
              kTruncatedHint);
    record->tensor.data = data.subspan(record->offset, record->bytes);
  }
  if (data.size() - end > alignment)
    in.fail("end of file", "nothing after the last tensor",
            std::to_string(data.size() - end) + " bytes");
}

}  // namespace

GgufFile::GgufFile(std::span<const uint8_t> bytes, std::string file) : file_(std::move(file)) {
  ByteReader in(bytes, file_);
  read_header(in);
  const auto tensor_count = in.read<uint64_t>("number of tensors");
  const auto value_count = in.read<uint64_t>("number of metadata values");
  in.require_count(tensor_count, kMinTensorRecord, "number of tensors");
  in.require_count(value_count, kMinValueRecord, "number of metadata values");
  for (uint64_t i = 0; i < value_count; ++i) {
    const std::string key(read_string(in, kMaxKey, "metadata key"));
    if (key.empty()) in.fail("metadata key", "some text", "nothing");
    if (!values_.emplace(key, read_value(in, bytes, "metadata " + printable(key))).second)
      in.fail("metadata key", "each key once", printable(key) + " twice");
  }
  uint64_t alignment = kDefaultAlignment;
  if (const GgufValue* value = find("general.alignment")) {
    if (value->is_array || value->type != GgufType::kU32)
      fail("general.alignment", "u32", type_name(*value));
    alignment = load<uint32_t>(value->bytes.data());
    if (!std::has_single_bit(alignment) || alignment < kMinAlignment || alignment > kMaxAlignment)
      fail("general.alignment", "a power of two in 8..65536", std::to_string(alignment));
  }
  std::vector<Record> records;
  std::set<std::string_view> names;
  in.require_count(tensor_count, kMinTensorRecord, "number of tensors");
  records.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) {
    records.push_back(read_tensor_record(in, alignment));
    if (!names.insert(records.back().tensor.name).second)
      in.fail("tensor table", "each tensor once", printable(records.back().tensor.name) + " twice");
  }
  // A file that ends right after the table (no tensors) need not be padded.
  const uint64_t padding = (alignment - in.offset() % alignment) % alignment;
  in.take(records.empty() ? std::min(padding, in.remaining()) : padding,
          "padding before the tensor data");
  place_tensors(in, bytes.subspan(in.offset()), alignment, records);
  tensors_.reserve(records.size());
  for (Record& record : records) tensors_.push_back(std::move(record.tensor));
}

void GgufFile::fail(const std::string& key, const std::string& expected,
                    const std::string& found) const {
  throw FormatError("invalid metadata " + printable(key) + " (" + file_ + ": expected " + expected +
                    ", found " + found + ")");
}

const GgufValue* GgufFile::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufValue* GgufFile::find_array(const std::string& key, uint64_t max_count) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_array) fail(key, "an array", type_name(*value));
  if (value->count > max_count)
    fail(key, "at most " + std::to_string(max_count) + " elements", std::to_string(value->count));
  return value;
}

std::optional<int64_t> GgufFile::integer(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_array) fail(key, "an integer", type_name(*value));
  const uint8_t* p = value->bytes.data();
  switch (value->type) {
    case GgufType::kU8:
      return *p;
    case GgufType::kI8:
      return load<int8_t>(p);
    case GgufType::kU16:
      return load<uint16_t>(p);
    case GgufType::kI16:
      return load<int16_t>(p);
    case GgufType::kU32:
      return load<uint32_t>(p);
    case GgufType::kI32:
      return load<int32_t>(p);
    case GgufType::kI64:
      return load<int64_t>(p);
    case GgufType::kU64:
      if (load<uint64_t>(p) > static_cast<uint64_t>(INT64_MAX))
        fail(key, "less than 2^63", std::to_string(load<uint64_t>(p)));
      return static_cast<int64_t>(load<uint64_t>(p));
    default:
      fail(key, "an integer", type_name(*value));
  }
}

std::optional<float> GgufFile::real(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const bool single = !value->is_array && value->type == GgufType::kF32;
  if (!single && (value->is_array || value->type != GgufType::kF64))
    fail(key, "f32 or f64", type_name(*value));
  const double number =
      single ? load<float>(value->bytes.data()) : load<double>(value->bytes.data());
  if (!(std::fabs(number) <= 3.4e38)) fail(key, "a finite float", std::to_string(number));
  return static_cast<float>(number);
}

std::optional<bool> GgufFile::boolean(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_array || value->type != GgufType::kBool) fail(key, "bool", type_name(*value));
  if (value->bytes[0] > 1) fail(key, "0 or 1", std::to_string(value->bytes[0]));
  return value->bytes[0] == 1;
}

std::optional<std::string> GgufFile::text(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_array || value->type != GgufType::kString) fail(key, "string", type_name(*value));
  std::string text(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
  if (!valid_utf8(text)) fail(key, "UTF-8 text", printable(text));
  return text;
}

std::optional<std::vector<std::string_view>> GgufFile::strings(const std::string& key,
                                                               uint64_t max_count) const {
  const GgufValue* value = find_array(key, max_count);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kString) fail(key, "an array of string", type_name(*value));
  ByteReader in(value->bytes, file_);
  std::vector<std::string_view> out;
  out.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) out.push_back(read_string(in, kMaxString, key));
  return out;
}

std::optional<std::vector<int32_t>> GgufFile::integers(const std::string& key,
                                                       uint64_t max_count) const {
  const GgufValue* value = find_array(key, max_count);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kI32 && value->type != GgufType::kU32)
    fail(key, "an array of i32 or u32", type_name(*value));
  std::vector<int32_t> out(value->count);
  if (!out.empty()) std::memcpy(out.data(), value->bytes.data(), value->bytes.size());
  return out;
}

std::optional<std::vector<float>> GgufFile::reals(const std::string& key,
                                                  uint64_t max_count) const {
  const GgufValue* value = find_array(key, max_count);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kF32) fail(key, "an array of f32", type_name(*value));
  std::vector<float> out(value->count);
  if (!out.empty()) std::memcpy(out.data(), value->bytes.data(), value->bytes.size());
  return out;
}

std::optional<std::string> GgufFile::bytes(const std::string& key, uint64_t max_count) const {
  const GgufValue* value = find_array(key, max_count);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kU8 && value->type != GgufType::kI8)
    fail(key, "an array of u8 or i8", type_name(*value));
  return std::string(value->bytes.begin(), value->bytes.end());
}

}  // namespace crumb::models

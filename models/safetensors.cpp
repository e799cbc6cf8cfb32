#include "models/safetensors.h"

#include <algorithm>
#include <set>

#include "models/byte_reader.h"
#include "models/errors.h"
#include "models/json.h"
#include "models/text.h"

namespace crumb::models {
namespace {

using nlohmann::json;

constexpr Dtype kDtypes[] = {{"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"I16", 2}, {"U16", 2},
                             {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},
                             {"I64", 8},  {"U64", 8},  {"F64", 8}};
constexpr std::size_t kMaxDims = 8;
constexpr std::size_t kMaxName = 1024;

[[noreturn]] void fail(const std::string& file, const std::string& what,
                       const std::string& expected, const std::string& found,
                       std::string_view hint = {}) {
  throw FormatError(
      "invalid " + what + " (" + file + ": expected " + expected + ", found " + found + ")",
      std::string(hint));
}

// Accepts exactly {"__metadata__": {string: string}, NAME: {"dtype": s, "shape": [n..],
// "data_offsets": [b, e]}}.
class HeaderHandler : public nlohmann::json_sax<json> {
 public:
  HeaderHandler(const std::string& file, Safetensors& out) : file_(file), out_(out) {}

  bool null() override { refuse("null"); }
  bool boolean(bool) override { refuse("a boolean"); }
  bool number_integer(number_integer_t) override { refuse("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    refuse("a number that is no 64-bit integer");
  }
  bool binary(binary_t&) override { refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ != State::kShape && state_ != State::kOffsets) refuse("a number");
    if (numbers_.size() == kMaxDims) refuse("more than 8 numbers");
    if (value > static_cast<uint64_t>(INT64_MAX)) refuse("a number above 2^63-1");
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      out_.metadata.find(key_)->second = std::move(value);
      return true;
    }
    if (state_ != State::kTensor || key_ != "dtype") refuse("a string");
    entry_.dtype = find_dtype(value);
    if (entry_.dtype == nullptr)
      fail(file_, "dtype of " + printable(entry_.name), "a known type", printable(value));
    return true;
  }

  bool start_object(std::size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kRoot;
    } else if (state_ == State::kRoot) {
      state_ = key_ == "__metadata__" ? State::kMetadata : State::kTensor;
      fields_ = 0;
      entry_ = {};
      entry_.name = key_;
    } else {
      refuse("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    key_ = value;
    if (state_ == State::kMetadata) {
      if (!out_.metadata.emplace(value, "").second) twice();
    } else if (state_ == State::kRoot) {
      if (value.empty() || value.size() > kMaxName)
        refuse("a tensor name of " + std::to_string(value.size()) + " bytes");
      if (!names_.insert(value).second) twice();
    } else {
      const int bit = value == "dtype" ? 1 : value == "shape" ? 2 : value == "data_offsets" ? 4 : 0;
      if (bit == 0) refuse("field " + printable(value));
      if ((fields_ & bit) != 0) twice();
      fields_ |= bit;
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor) {
      if (fields_ != 7) refuse("a tensor without dtype, shape or data_offsets");
      out_.tensors.push_back(std::move(entry_));
    }
    state_ = State::kRoot;
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ != State::kTensor || key_ == "dtype") refuse("an array");
    state_ = key_ == "shape" ? State::kShape : State::kOffsets;
    numbers_.clear();
    return true;
  }

  bool end_array() override {
    if (state_ == State::kShape) {
      entry_.shape = numbers_;
    } else {
      if (numbers_.size() != 2 || numbers_[0] > numbers_[1])
        fail(file_, "data_offsets of " + printable(entry_.name), "[begin, end] with begin <= end",
             "other numbers");
      entry_.begin = static_cast<uint64_t>(numbers_[0]);
      entry_.end = static_cast<uint64_t>(numbers_[1]);
    }
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    fail(file_, "header", "valid JSON", "an error at byte " + std::to_string(8 + position));
  }

 private:
  enum class State { kStart, kRoot, kMetadata, kTensor, kShape, kOffsets };

  [[noreturn]] void refuse(const std::string& found) const {
    fail(file_, "header", "what safetensors allows at key " + printable(key_), found);
  }
  [[noreturn]] void twice() const {
    fail(file_, "header", "each key once", printable(key_) + " twice");
  }

  const std::string& file_;
  Safetensors& out_;
  State state_ = State::kStart;
  std::string key_;
  std::set<std::string> names_;
  SafetensorsEntry entry_;
  std::vector<int64_t> numbers_;
  int fields_ = 0;  // of the tensor at hand: 1 dtype, 2 shape, 4 data_offsets
};

void check_layout(Safetensors& out, const std::string& file) {
  std::sort(out.tensors.begin(), out.tensors.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
            });
  uint64_t end = 0;
  for (const SafetensorsEntry& entry : out.tensors) {
    const std::string what = "data of tensor " + printable(entry.name);
    uint64_t bytes = static_cast<uint64_t>(entry.dtype->bytes);
    for (const int64_t dim : entry.shape)
      bytes = checked_mul(bytes, static_cast<uint64_t>(dim), what + " of " + file);
    if (entry.end - entry.begin != bytes)
      fail(file, what, std::to_string(bytes) + " bytes by shape and dtype",
           std::to_string(entry.end - entry.begin));
    if (entry.begin != end)
      fail(file, what, "begin at " + std::to_string(end),
           std::to_string(entry.begin) + " (hole or overlap)");
    end = entry.end;
    if (end > out.data.size())
      fail(file, what, std::to_string(end) + " bytes of tensor data",
           std::to_string(out.data.size()), kTruncatedHint);
  }
  if (end != out.data.size())
    fail(file, "end of file", std::to_string(end) + " bytes of tensor data",
         std::to_string(out.data.size()));
}

}  // namespace

const Dtype* find_dtype(std::string_view name) {
  for (const Dtype& dtype : kDtypes)
    if (dtype.name == name) return &dtype;
  return nullptr;
}

Safetensors parse_safetensors(std::span<const uint8_t> bytes, const std::string& file,
                              uint64_t max_header) {
  ByteReader in(bytes, file);
  const auto size = in.read<uint64_t>("header length");
  if (size > max_header)
    in.fail("header length", "at most " + std::to_string(max_header), std::to_string(size));
  Safetensors out;
  out.header = in.text(size, "header");
  if (!out.header.starts_with('{')) in.fail("header", "JSON starting with {", "other bytes");
  HeaderHandler handler(file, out);
  json::sax_parse(out.header.begin(), out.header.end(), &handler);
  out.data = bytes.subspan(in.offset());
  check_layout(out, file);
  return out;
}

}  // namespace crumb::models

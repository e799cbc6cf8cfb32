// The one bounds-checked reader of binary formats: nothing else touches file bytes by offset.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "models/errors.h"

namespace crumb::models {

// a * b and a + b, or FormatError naming `what` (put the file into it).
inline uint64_t checked_mul(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r))
    throw FormatError("invalid " + std::string(what) + " (expected a size below 2^64, found " +
                      std::to_string(a) + " * " + std::to_string(b) + ")");
  return r;
}
inline uint64_t checked_add(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t r = 0;
  if (__builtin_add_overflow(a, b, &r))
    throw FormatError("invalid " + std::string(what) + " (expected a size below 2^64, found " +
                      std::to_string(a) + " + " + std::to_string(b) + ")");
  return r;
}

inline constexpr std::string_view kTruncatedHint =
    "the file is damaged or cut short: download incomplete?";

// Reads little-endian values in order; every read past the end is a FormatError with the offset.
class ByteReader {
 public:
  ByteReader(std::span<const uint8_t> bytes, std::string file)
      : bytes_(bytes), file_(std::move(file)) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }
  const std::string& file() const { return file_; }

  template <class T>
  requires std::is_arithmetic_v<T> T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::span<const uint8_t> take(uint64_t n, std::string_view what) {
    if (n > remaining())
      fail(what, std::to_string(n) + " bytes", std::to_string(remaining()) + " left",
           kTruncatedHint);
    const auto s = bytes_.subspan(offset_, n);
    offset_ += n;
    return s;
  }
  std::string_view text(uint64_t n, std::string_view what) {
    const auto s = take(n, what);
    return {reinterpret_cast<const char*>(s.data()), s.size()};
  }
  // Call before allocating for `count` records of at least `min_bytes` each.
  void require_count(uint64_t count, uint64_t min_bytes, std::string_view what) const {
    if (count > remaining() / min_bytes)
      fail(what, "at most " + std::to_string(remaining() / min_bytes), std::to_string(count),
           kTruncatedHint);
  }
  [[noreturn]] void fail(std::string_view what, std::string_view expected, std::string_view found,
                         std::string_view hint = {}) const {
    throw FormatError("invalid " + std::string(what) + " (" + file_ + " at byte " +
                          std::to_string(offset_) + ": expected " + std::string(expected) +
                          ", found " + std::string(found) + ")",
                      std::string(hint));
  }

 private:
  std::span<const uint8_t> bytes_;
  std::string file_;
  uint64_t offset_ = 0;
};

}  // namespace crumb::models

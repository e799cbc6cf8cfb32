// Appending numbers and texts to the bytes of a binary file, little-endian, and their checksum.
#pragma once
#include <xxhash.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

namespace crumb::quant {

static_assert(std::endian::native == std::endian::little);

inline uint64_t hash_of(const void* data, std::size_t bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(data, bytes, seed);
}

inline std::string hex(uint64_t value) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

// Bytes are gathered as text: gcc 12 warns of overflows in std::vector<uint8_t>::insert where there
// are none.
template <class T>
void add(std::string& bytes, T value) {
  const auto raw = std::bit_cast<std::array<char, sizeof(T)>>(value);
  bytes.append(raw.data(), raw.size());
}

// The number of bytes, then the bytes.
template <class T>
void add_array(std::string& bytes, std::span<const T> values) {
  add(bytes, static_cast<uint64_t>(values.size_bytes()));
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

}  // namespace crumb::quant

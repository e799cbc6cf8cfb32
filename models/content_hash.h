// The name of some bytes.
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace crumb::models {

// xxh3-128 of the bytes, 32 hexadecimal digits.
std::string content_hash(std::span<const uint8_t> bytes);

}  // namespace crumb::models

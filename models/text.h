// Text of untrusted files: read, made safe to print, checked to be UTF-8.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace crumb::models {

// `text` in single quotes with control and non-ASCII bytes as \xHH, cut after `max_bytes`: for
// messages.
std::string printable(std::string_view text, std::size_t max_bytes = 80);

// Well-formed UTF-8: no overlong forms, surrogates or values above U+10FFFF.
bool valid_utf8(std::string_view text);

// A whole file, or stdin for "-". Throws IoError; more than `limit` bytes is Error(kMemory).
std::string read_text(const std::string& path, int64_t limit = int64_t{1} << 30);

}  // namespace crumb::models

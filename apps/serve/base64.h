// Base64 with padding (RFC 4648).
#pragma once
#include <string>
#include <string_view>

namespace crumb::serve {

inline std::string to_base64(std::string_view bytes) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto at = [&](std::size_t k) {
      return i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u;
    };
    const unsigned triple = at(0) << 16 | at(1) << 8 | at(2);
    for (unsigned k = 0; k < 4; ++k)
      out += i + k > bytes.size() ? '=' : kAlphabet[triple >> (18 - 6 * k) & 63];
  }
  return out;
}

}  // namespace crumb::serve

#include "tokenizer/utf8.h"

namespace crumb::tokenizer {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What a lead byte asks for. Only the second byte's range depends on it: that is where overlong
// forms, surrogates and values above U+10FFFF are shut out.
struct Lead {
  int length = 0;  // 0: no sequence starts so
  uint8_t second_low = 0x80, second_high = 0xBF;
};

constexpr Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

enum class Scan { kValid, kInvalid, kUnfinished };

struct Scanned {
  Scan kind;
  int length;  // of the sequence, or of the maximal subpart that is not one
};

Scanned scan(std::string_view text, std::size_t i) {
  const Lead lead = lead_of(static_cast<uint8_t>(text[i]));
  if (lead.length == 0) return {Scan::kInvalid, 1};
  for (int k = 1; k < lead.length; ++k) {
    if (i + k == text.size()) return {Scan::kUnfinished, k};
    const uint8_t byte = static_cast<uint8_t>(text[i + k]);
    const uint8_t low = k == 1 ? lead.second_low : 0x80;
    const uint8_t high = k == 1 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) return {Scan::kInvalid, k};
  }
  return {Scan::kValid, lead.length};
}

}  // namespace

CodePoint code_point_at(std::string_view text, std::size_t i) {
  const Scanned found = scan(text, i);
  if (found.kind != Scan::kValid) return {kNoCodePoint, 1};
  const uint8_t first = static_cast<uint8_t>(text[i]);
  if (found.length == 1) return {first, 1};
  uint32_t value = first & (0x7Fu >> found.length);
  for (int k = 1; k < found.length; ++k) {
    value = value << 6 | (static_cast<uint8_t>(text[i + k]) & 0x3Fu);
  }
  return {value, found.length};
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto continuation = [&](int shift) {
    out += static_cast<char>(0x80 | (code_point >> shift & 0x3F));
  };
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) {
    out += kReplacement;
  } else if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | code_point >> 6);
    continuation(0);
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xE0 | code_point >> 12);
    continuation(6);
    continuation(0);
  } else {
    out += static_cast<char>(0xF0 | code_point >> 18);
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

std::string Utf8Stream::push(std::string_view bytes) {
  // The tail is put in front and read again: it is 3 bytes at most, so this stays linear.
  const std::string joined = tail_ + std::string(bytes);
  tail_.clear();
  std::string out;
  out.reserve(joined.size());
  for (std::size_t i = 0; i < joined.size();) {
    const Scanned found = scan(joined, i);
    if (found.kind == Scan::kUnfinished) {
      tail_ = joined.substr(i);
      break;
    }
    if (found.kind == Scan::kValid) {
      out.append(joined, i, found.length);
    } else {
      out += kReplacement;
    }
    i += found.length;
  }
  return out;
}

std::string Utf8Stream::finish() {
  const bool held = !tail_.empty();
  tail_.clear();
  return std::string(held ? kReplacement : "");
}

std::string replace_invalid_utf8(std::string_view bytes) {
  Utf8Stream stream;
  std::string out = stream.push(bytes);
  return out + stream.finish();
}

}  // namespace crumb::tokenizer

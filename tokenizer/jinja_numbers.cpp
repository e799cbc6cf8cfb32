#include "tokenizer/jinja_numbers.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tokenizer/jinja_unicode.h"
#include "tokenizer/jinja_value.h"

namespace crumb::tokenizer::jinja {
namespace {

// Without the blanks around it and the underscores between its digits; nothing if an underscore
// stands elsewhere.
std::optional<std::string> plain_number(std::string_view text) {
  const Range kept = strip(text, nullptr, true, true);
  text = text.substr(kept.begin, kept.end - kept.begin);
  const auto is_digit = [&text](std::size_t i) {
    return i < text.size() && std::isxdigit(static_cast<unsigned char>(text[i])) != 0;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) {
      return std::nullopt;
    }
  }
  return out;
}

}  // namespace

std::optional<double> parse_float(std::string_view text) {
  const std::optional<std::string> plain = plain_number(text);
  if (!plain || plain->empty()) return std::nullopt;
  std::string_view body = *plain;
  if (body[0] == '+' || body[0] == '-') body.remove_prefix(1);
  std::string lower;
  for (const char c : body) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool named = lower == "inf" || lower == "infinity" || lower == "nan";
  // strtod also reads hexadecimal numbers and nan(...), which Python does not.
  if (!named && lower.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(plain->c_str(), &end);
  if (end != plain->c_str() + plain->size()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(std::string_view text, int64_t base) {
  const std::optional<std::string> plain = plain_number(text);
  if (!plain) return std::nullopt;
  std::string_view body = *plain;
  const bool negative = !body.empty() && body[0] == '-';
  if (!body.empty() && (body[0] == '-' || body[0] == '+')) body.remove_prefix(1);
  if (body.size() > 2 && body[0] == '0') {
    const char prefix = static_cast<char>(body[1] | 0x20);
    const int64_t named = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
    if (named != 0 && (base == named || base == 0)) {
      base = named;
      body.remove_prefix(2);
    }
  }
  if (base == 0) base = 10;
  if (body.empty() || body[0] == '-') return std::nullopt;
  std::string digits(negative ? "-" : "");
  digits += body;
  int64_t value = 0;
  const char* last = digits.data() + digits.size();
  const auto [end, code] = std::from_chars(digits.data(), last, value, static_cast<int>(base));
  if (code == std::errc::result_out_of_range && end == last) {
    fail("integer does not fit in 64 bits");
  }
  if (code != std::errc() || end != last) return std::nullopt;
  return value;
}

double round_decimals(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > 323) return value;
  if (precision >= 0) {
    char buffer[700];
    std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(precision), value);
    return std::strtod(buffer, nullptr);
  }
  if (precision < -308) return std::copysign(0.0, value);
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / scale) * scale;
}

}  // namespace crumb::tokenizer::jinja

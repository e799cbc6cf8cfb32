// Texts into numbers, and rounding, as Python does them.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace crumb::tokenizer::jinja {

// float(text) and int(text, base), base 0 or 2 to 36; nothing if the text is no number. Fails if
// the integer does not fit in 64 bits.
std::optional<double> parse_float(std::string_view text);
std::optional<int64_t> parse_integer(std::string_view text, int64_t base);

// round(value, precision): half to even in the decimal digits of the exact value; printf does so
// too.
double round_decimals(double value, int64_t precision);

}  // namespace crumb::tokenizer::jinja

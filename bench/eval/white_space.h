// White space as Python's str.strip() takes it, which the reference protocols use.
#pragma once
#include <string_view>

namespace crumb::eval {

// ASCII's (also 1c..1f), U+0085, U+00A0, U+1680, U+2000..200A, U+2028, U+2029, U+202F, U+205F and
// U+3000, in UTF-8.
std::string_view without_space_at_end(std::string_view text);
std::string_view without_space_at_ends(std::string_view text);

}  // namespace crumb::eval

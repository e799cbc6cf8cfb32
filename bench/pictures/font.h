// Letters and digits of five by seven dots, drawn for this project.
#pragma once
#include <cstdint>

namespace crumb::pictures {

inline constexpr int kGlyphWidth = 5, kGlyphHeight = 7;

// Whether the dot in column x, row y (from the top) of a digit or lower-case letter is set; nothing
// is for any other character.
bool glyph_dot(char c, int x, int y);

}  // namespace crumb::pictures

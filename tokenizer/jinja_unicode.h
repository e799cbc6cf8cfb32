// Characters as Python's str sees them: code points, white space, case, what repr() escapes.
// Bytes that are no valid UTF-8 count as one character each and pass through unchanged.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace crumb::tokenizer::jinja {

int64_t count_characters(std::string_view text);
// Byte offset of character `index`; text.size() if there are fewer.
std::size_t offset_of(std::string_view text, int64_t index);

bool is_space(uint32_t code_point);
bool is_printable(uint32_t code_point);
bool is_lower(uint32_t code_point);
// Upper or title case.
bool is_upper(uint32_t code_point);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
// str.capitalize() and str.title(); the latter starts a word after each character without case.
std::string capitalize(std::string_view text);
std::string title_words(std::string_view text);

// Half-open byte range that is left when characters in `set` (white space if null) are taken off.
struct Range {
  std::size_t begin, end;
};
Range strip(std::string_view text, const std::string_view* set, bool left, bool right);

// Lines without their ends, as str.splitlines() cuts them.
std::size_t line_end_length(std::string_view text, std::size_t i);

}  // namespace crumb::tokenizer::jinja

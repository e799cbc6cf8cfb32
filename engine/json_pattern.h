// Regular expressions of JSON schemas as grammars of JSON strings.
//
// What is written matches in the sense of ECMA 262 (with the u flag) and of Python's re alike;
// where the two differ, or say much of Unicode, only the common part is written. Supported:
// literals, `.`, classes, \d \w \s and their opposites, escapes of characters, groups that are not
// looked at again, |, * + ? {m} {m,} {m,n} (lazy ones too: the strings are the same), ^ and $ at
// the ends of the whole or of one of its outermost alternatives. Not supported, and said so:
// references back, looking around, \b, \p, anchors elsewhere, flags.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "engine/json_program.h"

namespace crumb::json {

// A pattern that is wrong, not supported or too large; what() says which.
struct PatternError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// JSON strings, with their quotes, that hold `low`..`high` characters (kMany: no bound) and match
// `pattern` somewhere; then `next`. Characters are written as themselves where JSON lets them.
int32_t pattern_string(Builder& builder, std::string_view pattern, int32_t low, int32_t high,
                       int32_t next);

// A pattern for what `format` demands of a string: only such strings, though not all of them. Empty
// if the format is not known here.
std::string pattern_of_format(std::string_view format);

}  // namespace crumb::json

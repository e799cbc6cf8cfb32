// Tokens into a syntax tree, with Jinja's grammar.
#pragma once
#include <cstdint>
#include <string_view>

#include "tokenizer/jinja_ast.h"

namespace crumb::tokenizer::jinja {

// Throws TemplateError for wrong syntax, statements, filters, tests and functions that do not exist
// here, and for trees deeper than `depth`.
Body parse(std::string_view source, int64_t depth);

}  // namespace crumb::tokenizer::jinja

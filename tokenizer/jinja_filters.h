// Filters and tests.
#pragma once
#include <string>
#include <string_view>

#include "tokenizer/jinja_ast.h"
#include "tokenizer/jinja_methods.h"

namespace crumb::tokenizer::jinja {

bool is_filter(std::string_view name);

// What is wrong with a filter or test node (unknown name, arguments that cannot fit), or nothing.
std::string check_filter(const Expr& filter);
std::string check_test(const Expr& test);

// `arguments` without the input. Fails on unknown names, too: map and select take names at run
// time.
Value apply_filter(Meter& meter, std::string_view name, const Value& input,
                   const Arguments& arguments);
bool apply_test(Meter& meter, std::string_view name, const Value& input,
                const Arguments& arguments);

}  // namespace crumb::tokenizer::jinja

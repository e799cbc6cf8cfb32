// Operators, attributes and subscripts, as Python has them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/jinja_ast.h"
#include "tokenizer/jinja_value.h"

namespace crumb::tokenizer::jinja {

// What a rendering has used of its budget.
struct Meter {
  TemplateBudget budget;
  int64_t steps = 0;

  void charge(int64_t count);
  // For a string of that many bytes that is about to be made: bounds its size and counts its work.
  void charge_bytes(std::size_t bytes);
  // For walking a value.
  void charge_walk(const Value& value);
};

// kAdd to kConcat, and kEq to kNotIn.
Value binary(Meter& meter, Op op, const Value& a, const Value& b);
bool compare(Meter& meter, Op op, const Value& a, const Value& b);
// kNot, kNeg, kPos.
Value unary(Op op, const Value& value);

// object.name and object[key]: undefined if there is none; fails on an undefined object and on
// Python attributes that are not supported.
Value attribute(const Value& object, const std::string& name);
Value item(const Value& object, const Value& key);
// object[start:stop:step]; None where left out.
Value slice(Meter& meter, const Value& object, const Value& start, const Value& stop,
            const Value& step);

// `count` times range(start, stop, step), within the budget.
Value range(Meter& meter, int64_t start, int64_t stop, int64_t step, bool literal);

// HTML escaping of the filter escape; text that came from it or from safe stays as it is.
Text escaped(const Text& text);

}  // namespace crumb::tokenizer::jinja

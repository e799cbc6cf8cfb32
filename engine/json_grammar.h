// JSON texts that a schema allows, and calls of functions, so that a model can be held to them
// while it writes.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace crumb {

namespace json {
struct Program;
}

// A schema that is wrong or asks for what is not supported, and where (a JSON pointer).
class SchemaError : public std::runtime_error {
 public:
  SchemaError(std::string pointer, const std::string& what)
      : std::runtime_error(what), pointer_(std::move(pointer)) {}
  const std::string& pointer() const { return pointer_; }

 private:
  std::string pointer_;
};

// A function that a model may call.
struct ToolFunction {
  std::string name;
  const nlohmann::ordered_json* parameters;  // a schema of type object; null: any object
};
struct ToolUse {
  bool required = false;  // nothing but calls, at least one; else any text, calls in it or not
  bool several = true;    // more than one
};
inline constexpr const char *kToolCallBegin = "<tool_call>", *kToolCallEnd = "</tool_call>";

// Immutable; shared by any number of matchers.
class JsonGrammar {
 public:
  // Any JSON object.
  static std::shared_ptr<const JsonGrammar> any_object();
  // What is written validates against the schema. Supported: type, enum, const, properties,
  // required, additionalProperties, items, prefixItems, minItems, maxItems, minLength, maxLength,
  // pattern and format (json_pattern.h), minimum, maximum, exclusiveMinimum, exclusiveMaximum (of
  // numbers with a fraction: whole bounds), multipleOf (whole numbers), uniqueItems (of an enum, in
  // its order), anyOf, oneOf of values that cannot be confused, local $ref. Annotations are passed
  // over. Everything else is a SchemaError: nothing is left unchecked. Properties come in the
  // schema's order; where others are allowed, none is written, but those required and in objects
  // without any of their own.
  static std::shared_ptr<const JsonGrammar> from_schema(const nlohmann::ordered_json& schema);
  // Calls of functions, each <tool_call>{"name": .., "arguments": ..}</tool_call> with white space
  // where JSON has it, the arguments an object that validates against the function's schema.
  // Errors are named by "/i/parameters..", i counting the functions.
  static std::shared_ptr<const JsonGrammar> tool_calls(const std::vector<ToolFunction>& functions,
                                                       ToolUse use);

  explicit JsonGrammar(std::unique_ptr<const json::Program> program);
  ~JsonGrammar();
  const json::Program& program() const { return *program_; }
  // Of the shortest text; no text takes fewer tokens than it has bytes, at the worst.
  int64_t least_bytes() const;

 private:
  std::unique_ptr<const json::Program> program_;
};

}  // namespace crumb

// JSON texts that a schema allows, so that a model can be held to them while it writes.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>

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

// Immutable; shared by any number of matchers.
class JsonGrammar {
 public:
  // Any JSON object.
  static std::shared_ptr<const JsonGrammar> any_object();
  // What is written validates against the schema. Supported: type, enum, const, properties,
  // required, additionalProperties, items, prefixItems, minItems, maxItems, minLength, maxLength,
  // minimum, maximum, exclusiveMinimum, exclusiveMaximum (of integers), anyOf, oneOf of values that
  // cannot be confused, local $ref. Annotations are passed over. Everything else is a SchemaError:
  // nothing is left unchecked. Properties come in the schema's order; where others are allowed,
  // none is written, but for objects without any of their own.
  static std::shared_ptr<const JsonGrammar> from_schema(const nlohmann::ordered_json& schema);

  explicit JsonGrammar(std::unique_ptr<const json::Program> program);
  ~JsonGrammar();
  const json::Program& program() const { return *program_; }
  // Of the shortest text; no text takes fewer tokens than it has bytes, at the worst.
  int64_t least_bytes() const;

 private:
  std::unique_ptr<const json::Program> program_;
};

}  // namespace crumb


#include "engine/json_grammar.h"
#include "engine/json_keywords.h"
#include "engine/json_program.h"
#include "engine/json_schema.h"
#include "models/json.h"

namespace crumb {
namespace json {
namespace {

// {"name": "f", "arguments": ..} and what stands around it, then `next`.
int32_t call_of(Builder& b, const std::string& name, int32_t arguments, int32_t next) {
  int32_t place = b.space(b.literal(kToolCallEnd, next));
  place = b.call(arguments, b.space(b.byte('}', place)));
  place = b.byte(',', b.space(b.literal("\"arguments\":", b.space(place))));
  place = b.literal("\"name\":", b.space(b.literal(Json(name).dump(), place)));
  return b.space(b.byte('{', b.space(place)));
}

// Any bytes, which may end anywhere, until kToolCallBegin leads to `call`. Its first byte stands in
// it once only, so that what fails to go on is at its beginning or at its second byte.
int32_t text_until_call(Builder& b, int32_t call) {
  const std::string_view mark = kToolCallBegin;
  std::vector<int32_t> at(mark.size() + 1, call);  // with so many of its bytes seen
  for (std::size_t i = 0; i < mark.size(); ++i) at[i] = b.split(0, 0);  // closed below
  for (std::size_t i = 0; i < mark.size(); ++i) {
    ByteSet others;
    others.set();
    others.reset(static_cast<unsigned char>(mark[0]));
    others.reset(static_cast<unsigned char>(mark[i]));
    int32_t ways = b.split(b.bytes(others, at[0]), b.byte(mark[i], at[i + 1]));
    if (i > 0) ways = b.split(ways, b.byte(mark[0], at[1]));
    b.redirect(at[i], Builder::kReturn, ways);
  }
  return at[0];
}

const Json& parameters_of(const ToolFunction& function, const std::string& place) {
  const Json& schema = *function.parameters;
  if (!schema.is_object()) fail(place, "a schema of type object");
  const auto type = schema.find("type");
  const bool object = type == schema.end() ? schema.contains("properties")
                                           : type->is_string() && has_type(Json::object(), *type);
  if (!object) fail(place, "a schema of type object");
  return schema;
}

Program program_of(const std::vector<ToolFunction>& functions, ToolUse use) {
  Builder b;
  SchemaCompiler compiler(b);
  const int32_t after = b.split(0, 0);  // closed below
  std::vector<int32_t> calls;
  int32_t free = -1;
  for (std::size_t i = 0; i < functions.size(); ++i) {
    const ToolFunction& function = functions[i];
    const std::string place = "/" + std::to_string(i) + "/parameters";
    int32_t arguments = free;
    if (function.parameters != nullptr && !function.parameters->empty())
      arguments = compiler.add(parameters_of(function, place), place);
    else if (free < 0)
      arguments = free = compiler.any_object();
    calls.push_back(call_of(b, function.name, arguments, after));
  }
  const int32_t call = b.any_of(calls);
  const int32_t marked = b.literal(kToolCallBegin, call);
  const int32_t text = use.required ? marked : text_until_call(b, call);
  if (!use.several)
    b.redirect(after, Builder::kReturn, Builder::kReturn);
  else if (use.required)
    b.redirect(after, Builder::kReturn, b.space(marked));
  else
    b.redirect(after, text, text);
  const int32_t root = b.value();
  b.define(root, text);
  Program program = b.finish(root);
  compiler.check(program);
  return program;
}

}  // namespace
}  // namespace json

std::shared_ptr<const JsonGrammar> JsonGrammar::tool_calls(
    const std::vector<ToolFunction>& functions, ToolUse use) {
  return std::make_shared<JsonGrammar>(
      std::make_unique<const json::Program>(json::program_of(functions, use)));
}

}  // namespace crumb

#include "engine/json_keywords.h"

#include <algorithm>
#include <cmath>

#include "engine/json_grammar.h"

namespace crumb::json {
namespace {

constexpr int64_t kMostItems = 1 << 20;
const std::set<std::string> kAnnotations = {"title",    "description", "default",  "examples",
                                            "$schema",  "$id",         "$comment", "deprecated",
                                            "readOnly", "writeOnly",   "$defs",    "definitions"};

}  // namespace

void fail(const std::string& pointer, const std::string& what) { throw SchemaError(pointer, what); }

std::string escaped(const std::string& key) {
  std::string out;
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

void only(const std::string& pointer, const Json& schema, const std::set<std::string>& known) {
  for (const auto& [name, value] : schema.items())
    if (!known.contains(name) && !kAnnotations.contains(name))
      fail(pointer + "/" + escaped(name), "the keyword is not supported here");
}

int64_t count(const std::string& pointer, const Json& schema, const char* name, int64_t otherwise) {
  if (!schema.contains(name)) return otherwise;
  const Json& value = schema[name];
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(kMostItems))
    fail(pointer + "/" + name, "an integer from 0 to " + std::to_string(kMostItems));
  return value.get<int64_t>();
}

double limit(const std::string& pointer, const Json& schema, const char* name, double otherwise) {
  if (!schema.contains(name)) return otherwise;
  if (!schema[name].is_number()) fail(pointer + "/" + name, "a number");
  return schema[name].get<double>();
}

int64_t whole_limit(const std::string& pointer, const Json& schema, const char* name,
                    int64_t most) {
  const double value = limit(pointer, schema, name, 0);
  if (value != std::trunc(value) || std::abs(value) > static_cast<double>(most))
    fail(pointer + "/" + name, "only whole numbers of at most 15 digits are supported");
  return static_cast<int64_t>(value);
}

std::vector<std::string> names_of(const std::string& pointer, const Json& schema,
                                  const char* name) {
  std::vector<std::string> names;
  if (!schema.contains(name)) return names;
  if (!schema[name].is_array()) fail(pointer + "/" + name, "an array of names");
  for (const Json& one : schema[name]) {
    if (!one.is_string()) fail(pointer + "/" + name, "an array of names");
    if (std::find(names.begin(), names.end(), one.get<std::string>()) == names.end())
      names.push_back(one.get<std::string>());
  }
  return names;
}

bool has_type(const Json& value, const Json& type) {
  if (type.is_array())
    return std::any_of(type.begin(), type.end(),
                       [&](const Json& one) { return has_type(value, one); });
  if (!type.is_string()) return false;
  const std::string name = type.get<std::string>();
  if (name == "integer") return value.is_number_integer();
  if (name == "number") return value.is_number();
  return name == value.type_name();
}

}  // namespace crumb::json

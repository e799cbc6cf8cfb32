// Keywords of a schema object; included by json_*.cpp only. `pointer` is the object's; every error
// is a SchemaError with the keyword's.
#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "models/json.h"

namespace crumb::json {

using Json = nlohmann::ordered_json;

[[noreturn]] void fail(const std::string& pointer, const std::string& what);
// A key as a JSON pointer has it.
std::string escaped(const std::string& key);

// Every keyword is among these or says nothing of the value.
void only(const std::string& pointer, const Json& schema, const std::set<std::string>& known);
// A number of characters or items.
int64_t count(const std::string& pointer, const Json& schema, const char* name, int64_t otherwise);
double limit(const std::string& pointer, const Json& schema, const char* name, double otherwise);
// Is there; a whole number of at most this magnitude.
int64_t whole_limit(const std::string& pointer, const Json& schema, const char* name, int64_t most);
// An array of names, if there is one.
std::vector<std::string> names_of(const std::string& pointer, const Json& schema, const char* name);
// `type`: what the keyword says.
bool has_type(const Json& value, const Json& type);

}  // namespace crumb::json

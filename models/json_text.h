// JSON of model files: bounded depth, no duplicate keys, typed access with FormatError. Included by
// .cpp only.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/json.h"

namespace crumb::models {

inline constexpr int kMaxJsonDepth = 64;

// Where a value was found, for messages.
struct JsonPlace {
  const std::string& file;
  std::string_view record;
};

// Parses a whole text (at most max_bytes long). FormatError: syntax, depth, duplicate key, not an
// object.
nlohmann::json parse_json_object(std::string_view text, const JsonPlace& place,
                                 std::size_t max_bytes);

[[noreturn]] void json_fail(const JsonPlace& place, std::string_view field,
                            std::string_view expected, std::string_view found);

// Members of an object. FormatError if absent, of another type, or an integer outside [low, high].
int64_t json_int(const nlohmann::json& object, const char* field, int64_t low, int64_t high,
                 const JsonPlace& place);
float json_float(const nlohmann::json& object, const char* field, const JsonPlace& place);
bool json_bool(const nlohmann::json& object, const char* field, const JsonPlace& place);
std::string json_string(const nlohmann::json& object, const char* field, const JsonPlace& place);

// Every member of `object` is one of `known`. FormatError names the first that is not.
void json_only(const nlohmann::json& object, const std::vector<std::string_view>& known,
               const JsonPlace& place);

// Compact text; bytes that are no UTF-8 become U+FFFD.
std::string json_dump(const nlohmann::json& value);
std::string json_dump(const nlohmann::ordered_json& value);

}  // namespace crumb::models

#include "models/json_text.h"

#include <algorithm>
#include <set>

#include "models/errors.h"
#include "models/text.h"

namespace crumb::models {
namespace {

using nlohmann::json;

const json& member(const json& object, const char* field, const JsonPlace& place) {
  const auto found = object.find(field);
  if (found == object.end()) json_fail(place, field, "a value", "nothing");
  return *found;
}

// The library's depth counts from 0 and its duplicate keys overwrite silently: both are caught
// here.
class StructureCheck {
 public:
  explicit StructureCheck(const JsonPlace& place) : place_(place) {}

  bool operator()(int depth, json::parse_event_t event, const json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (depth >= kMaxJsonDepth)
          json_fail(place_, "JSON", "at most " + std::to_string(kMaxJsonDepth) + " levels", "more");
        keys_.resize(static_cast<std::size_t>(depth) + 1);
        keys_.emplace_back();
        break;
      case json::parse_event_t::key: {
        const auto& key = parsed.get_ref<const std::string&>();
        if (!keys_.at(static_cast<std::size_t>(depth)).insert(key).second)
          json_fail(place_, "JSON", "each key once", printable(key) + " twice");
        break;
      }
      default:
        break;
    }
    return true;
  }

 private:
  JsonPlace place_;
  std::vector<std::set<std::string>> keys_;  // [depth], of the object open at that depth
};

}  // namespace

void json_fail(const JsonPlace& place, std::string_view field, std::string_view expected,
               std::string_view found) {
  throw FormatError("invalid " + std::string(field) + " (" + place.file + " in " +
                    std::string(place.record) + ": expected " + std::string(expected) + ", found " +
                    std::string(found) + ")");
}

json parse_json_object(std::string_view text, const JsonPlace& place, std::size_t max_bytes) {
  if (text.size() > max_bytes)
    json_fail(place, "JSON", "at most " + std::to_string(max_bytes) + " bytes",
              std::to_string(text.size()));
  try {
    json value = json::parse(text.begin(), text.end(), StructureCheck(place));
    if (!value.is_object()) json_fail(place, "JSON", "an object", value.type_name());
    return value;
  } catch (const json::exception& error) {
    json_fail(place, "JSON", "valid JSON", printable(error.what(), 200));
  }
}

int64_t json_int(const json& object, const char* field, int64_t low, int64_t high,
                 const JsonPlace& place) {
  const json& value = member(object, field, place);
  const std::string range = "an integer in " + std::to_string(low) + ".." + std::to_string(high);
  if (!value.is_number_integer()) json_fail(place, field, range, value.type_name());
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    json_fail(place, field, range, std::to_string(value.get<uint64_t>()));
  const auto number = value.get<int64_t>();
  if (number < low || number > high) json_fail(place, field, range, std::to_string(number));
  return number;
}

float json_float(const json& object, const char* field, const JsonPlace& place) {
  const json& value = member(object, field, place);
  if (!value.is_number()) json_fail(place, field, "a number", value.type_name());
  const auto number = value.get<double>();
  if (!(number >= -3.4e38 && number <= 3.4e38))
    json_fail(place, field, "a finite float", std::to_string(number));
  return static_cast<float>(number);
}

bool json_bool(const json& object, const char* field, const JsonPlace& place) {
  const json& value = member(object, field, place);
  if (!value.is_boolean()) json_fail(place, field, "true or false", value.type_name());
  return value.get<bool>();
}

std::string json_string(const json& object, const char* field, const JsonPlace& place) {
  const json& value = member(object, field, place);
  if (!value.is_string()) json_fail(place, field, "a string", value.type_name());
  return value.get<std::string>();
}

void json_only(const json& object, const std::vector<std::string_view>& known,
               const JsonPlace& place) {
  for (const auto& item : object.items())
    if (std::find(known.begin(), known.end(), item.key()) == known.end())
      json_fail(place, "field", "only the fields of this version", printable(item.key()));
}

std::string json_dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}
std::string json_dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace crumb::models

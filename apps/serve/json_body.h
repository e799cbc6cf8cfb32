// JSON of requests: bounded, strict, and with the field at fault named. Included by .cpp only.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/serve/api_error.h"
#include "apps/serve/limits.h"
#include "models/json.h"

namespace crumb::serve {

using Json = nlohmann::ordered_json;

// One JSON object. ApiError 400: syntax (with the byte), depth, number of keys, a key twice, a
// number no double holds, bytes that are not UTF-8, something else than an object. Linear in the
// text but for the keys of one object, whose number is bounded.
Json parse_body(std::string_view text, const Limits& limits);

// Compact text; bytes that are not UTF-8 become U+FFFD.
std::string dump(const Json& value);

// Fields that nobody asked for: noted by their paths, or refused.
struct UnknownFields {
  bool refused = false;
  std::vector<std::string> names = {};  // the first kMost of them
  static constexpr std::size_t kMost = 100;
};

// The fields of one object, asked for one by one: of another type or out of range is ApiError 400.
// A null counts as absent.
class Fields {
 public:
  // `path` is what the names are prefixed with in messages: "", "messages[3].", ..
  Fields(const Json& object, std::string path);

  std::optional<double> real(const char* name, double low, double high);
  std::optional<int64_t> integer(const char* name, int64_t low, int64_t high);
  std::optional<bool> boolean(const char* name);
  std::optional<std::string> text(const char* name);
  std::optional<std::string> choice(const char* name, const std::vector<std::string>& allowed);
  const Json* value(const char* name);  // of any type, null if absent
  const Json* object(const char* name);
  const Json* array(const char* name, int64_t low, int64_t high);  // `low`..`high` elements
  std::string required_text(const char* name);
  // Known, and of no effect here; which of them were given is kept.
  void accept(std::initializer_list<const char*> names);
  const std::vector<std::string>& accepted() const { return accepted_; }
  void finish(UnknownFields& unknown) const;

  std::string path_of(const char* name) const { return path_ + name; }
  [[noreturn]] void refuse(const char* name, const std::string& expected, const Json& found) const;

 private:
  const Json* find(const char* name);

  const Json& object_;
  std::string path_;
  std::vector<std::string> asked_, accepted_;
};

// The integer a JSON number stands for (2.0 is one too), nothing if it is none or does not fit.
std::optional<int64_t> integer_of(const Json& value);

bool is_text(const Json& value, std::string_view text);

// A value in a message: its type, and its text if that is short and no string.
std::string shown(const Json& value);

}  // namespace crumb::serve

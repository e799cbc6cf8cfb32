#include "apps/serve/json_body.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace crumb::serve {
namespace {

ApiError bad_json(const std::string& why) { return {400, why, {}, "invalid_json"}; }

// Builds the value without recursion. The library's own builder looks every key up in objects of
// any size, takes a key twice without a word, and knows no depth.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(const Limits& limits) : limits_(limits) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { throw bad_json("binary values are not JSON"); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& value) override {
    const auto& object = open_.back()->get_ref<const Json::object_t&>();
    if (object.find(value) != object.end())
      throw bad_json("the key '" + value.substr(0, 64) + "' is there twice");
    if (static_cast<int64_t>(object.size()) >= limits_.json_keys)
      throw bad_json(fmt::format("an object has more than {} keys", limits_.json_keys));
    key_ = std::move(value);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // The library's own text quotes the body; a number no double holds has no position of its own.
    if (error.id == 406) throw bad_json("a number is too large for a double");
    throw bad_json(fmt::format("the body is not valid JSON (at byte {})", position));
  }

 private:
  Json* add(Json value, int) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      auto& array = parent.get_ref<Json::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    auto& object = parent.get_ref<Json::object_t&>();
    object.emplace_back(std::move(key_), std::move(value));
    return &object.back().second;
  }
  template <class T>
  bool add(T&& value) {
    add(Json(std::forward<T>(value)), 0);
    return true;
  }
  bool open(Json value) {
    if (static_cast<int64_t>(open_.size()) >= limits_.json_depth)
      throw bad_json(fmt::format("the JSON is more than {} levels deep", limits_.json_depth));
    open_.push_back(add(std::move(value), 0));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const Limits& limits_;
  Json root_;
  std::vector<Json*> open_;  // a parent does not grow while its child is open
  std::string key_;
};

}  // namespace

Json parse_body(std::string_view text, const Limits& limits) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos)
    throw bad_json("the body is empty, expected a JSON object");
  Builder builder(limits);
  Json::sax_parse(text.begin(), text.end(), &builder);
  Json value = builder.take();
  if (!value.is_object())
    throw bad_json(std::string("expected a JSON object, found ") + value.type_name());
  return value;
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool is_text(const Json& value, std::string_view text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}

std::string shown(const Json& value) {
  if (value.is_primitive() && !value.is_string()) {
    const std::string text = dump(value);
    if (text.size() <= 32) return text;
  }
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  if (value.is_object()) return "an object";
  return std::string("a ") + value.type_name();
}

Fields::Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (object.is_object()) return;
  std::string name = path_.empty() ? "body" : path_;
  if (name.ends_with('.')) name.pop_back();
  throw bad_field(name, "an object", shown(object));
}

const Json* Fields::find(const char* name) {
  asked_.emplace_back(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void Fields::refuse(const char* name, const std::string& expected, const Json& found) const {
  throw bad_field(path_of(name), expected, shown(found));
}

std::optional<double> Fields::real(const char* name, double low, double high) {
  const Json* found = find(name);
  if (found == nullptr) return std::nullopt;
  const double value = found->is_number() ? found->get<double>() : low - 1;
  if (!(value >= low && value <= high))
    refuse(name, fmt::format("a number in {}..{}", low, high), *found);
  return value;
}

std::optional<int64_t> integer_of(const Json& value) {
  if (value.is_number_float()) {
    // 2.0 is an integer to JSON. Beyond 2^53 a double does not say which one.
    constexpr double kExact = 9007199254740992.0;
    const double number = value.get<double>();
    if (number != std::trunc(number) || std::abs(number) > kExact) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    return std::nullopt;
  return value.get<int64_t>();
}

std::optional<int64_t> Fields::integer(const char* name, int64_t low, int64_t high) {
  const Json* found = find(name);
  if (found == nullptr) return std::nullopt;
  const auto value = integer_of(*found);
  if (!value || *value < low || *value > high)
    refuse(name, fmt::format("an integer in {}..{}", low, high), *found);
  return value;
}

std::optional<bool> Fields::boolean(const char* name) {
  const Json* found = find(name);
  if (found == nullptr) return std::nullopt;
  if (!found->is_boolean()) refuse(name, "true or false", *found);
  return found->get<bool>();
}

std::optional<std::string> Fields::text(const char* name) {
  const Json* found = find(name);
  if (found == nullptr) return std::nullopt;
  if (!found->is_string()) refuse(name, "a string", *found);
  return found->get<std::string>();
}

std::optional<std::string> Fields::choice(const char* name,
                                          const std::vector<std::string>& allowed) {
  const Json* found = find(name);
  if (found == nullptr) return std::nullopt;
  if (!found->is_string() ||
      std::find(allowed.begin(), allowed.end(), found->get<std::string>()) == allowed.end())
    refuse(name, fmt::format("one of {}", fmt::join(allowed, ", ")), *found);
  return found->get<std::string>();
}

const Json* Fields::value(const char* name) { return find(name); }

const Json* Fields::object(const char* name) {
  const Json* found = find(name);
  if (found != nullptr && !found->is_object()) refuse(name, "an object", *found);
  return found;
}

const Json* Fields::array(const char* name, int64_t low, int64_t high) {
  const Json* found = find(name);
  if (found == nullptr) return nullptr;
  const auto size = static_cast<int64_t>(found->size());
  if (!found->is_array() || size < low || size > high)
    refuse(name, fmt::format("an array of {}..{}", low, high), *found);
  return found;
}

std::string Fields::required_text(const char* name) {
  auto found = text(name);
  if (!found) throw bad_field(path_of(name), "a string", "nothing");
  return *found;
}

void Fields::accept(std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (find(name) != nullptr) accepted_.emplace_back(name);
}

void Fields::finish(UnknownFields& unknown) const {
  for (const auto& [name, value] : object_.items()) {
    if (value.is_null() || std::find(asked_.begin(), asked_.end(), name) != asked_.end()) continue;
    const std::string field = path_ + name.substr(0, 64);
    if (unknown.refused)
      throw ApiError{400, "unknown field '" + field + "'", field, "unknown_field"};
    if (unknown.names.size() < UnknownFields::kMost) unknown.names.push_back(field);
  }
}

}  // namespace crumb::serve

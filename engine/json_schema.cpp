#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/json_grammar.h"
#include "engine/json_program.h"

namespace crumb {
namespace {

using json::Builder;
using json::kMany;
using Json = nlohmann::ordered_json;

constexpr int64_t kMostDigits =
    999'999'999'999'999;  // 15 nines: exact in a double, with a fraction
constexpr int64_t kMostItems = 1 << 20;

const std::set<std::string> kAnnotations = {"title",    "description", "default",  "examples",
                                            "$schema",  "$id",         "$comment", "deprecated",
                                            "readOnly", "writeOnly",   "$defs",    "definitions"};

std::string escaped(const std::string& key) {
  std::string out;
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

constexpr int kMaxDepth = 64;

bool deeper_than(const Json& value, int levels) {
  if (!value.is_structured()) return false;
  return levels == 0 || std::any_of(value.begin(), value.end(),
                                    [&](const Json& one) { return deeper_than(one, levels - 1); });
}

class Compiler {
 public:
  explicit Compiler(const Json& root) : root_(root) {}

  json::Program compile() {
    const int32_t value = value_at("", root_);
    while (!waiting_.empty()) {
      const auto [pointer, schema, id] = waiting_.back();
      waiting_.pop_back();
      current_ = pointer;
      b_.define(id, define(pointer, *schema));
    }
    check_cycles();
    json::Program program = b_.finish(value);
    for (const auto& [pointer, id] : values_)
      if (program.costs[static_cast<std::size_t>(id)] >= json::kNever)
        fail(pointer, "no finite value is valid");
    return program;
  }

  json::Program any_object() {
    const int32_t object = b_.value();
    b_.define(object, free_object(any()));
    return b_.finish(object);
  }

 private:
  [[noreturn]] static void fail(const std::string& pointer, const std::string& what) {
    throw SchemaError(pointer, what);
  }

  // The value of a schema, defined once whoever refers to it.
  int32_t value_at(const std::string& pointer, const Json& schema) {
    const auto [found, fresh] = values_.try_emplace(pointer, 0);
    if (fresh) {
      found->second = b_.value();
      waiting_.push_back({pointer, &schema, found->second});
    }
    return found->second;
  }

  int32_t any() {
    if (any_ >= 0) return any_;
    any_ = b_.value();
    b_.define(any_, b_.any_of({free_object(any_), array(any_, 0, kMany), b_.string(0, kMany, 0),
                               number(0), b_.literal("true", 0), b_.literal("false", 0),
                               b_.literal("null", 0)}));
    return any_;
  }

  // One value for all places that want the same large one.
  template <class Build>
  int32_t shared(int32_t& value, Build build) {
    if (value < 0) {
      value = b_.value();
      b_.define(value, build());
    }
    return b_.call(value, 0);
  }

  // ---- values without a schema of their own; all end at 0, which returns

  int32_t free_object(int32_t member) {
    const auto pair = [&](int32_t next) {
      return b_.string(0, kMany, b_.byte(':', b_.space(b_.call(member, next))));
    };
    const int32_t end = b_.space(b_.byte('}', 0));
    const int32_t more = b_.split(0, 0);  // closed below
    const int32_t again = b_.byte(',', b_.space(pair(more)));
    b_.redirect(more, end, again);
    return b_.byte('{', b_.space(b_.split(b_.byte('}', 0), pair(more))));
  }

  int32_t array(int32_t item, int64_t low, int64_t high) {
    const int32_t close = b_.byte(']', 0);
    if (high == 0) return b_.byte('[', close);
    const int32_t end = b_.space(close);
    const int32_t loop = b_.loop(
        static_cast<int32_t>(low), bound(high),
        [&](int32_t count) { return b_.byte(',', b_.space(b_.call(item, count))); }, end);
    const int32_t begin = b_.size();
    const int32_t first = b_.call(item, b_.count(loop));
    const int32_t entry =
        b_.byte('[', b_.space(low == 0 ? b_.split(b_.byte(']', 0), first) : first));
    b_.mark(begin, loop, true);
    return entry;
  }

  static int32_t bound(int64_t n) { return n >= kMany ? kMany : static_cast<int32_t>(n); }

  int32_t fraction(int32_t next, char last = '9') {
    // At most 15 digits behind the point.
    int32_t digits = next;
    for (int i = 0; i < 14; ++i) digits = b_.split(next, b_.range('0', last, digits));
    return b_.split(next, b_.byte('.', b_.range('0', last, digits)));
  }

  int32_t number(int32_t next) {
    const int32_t digit = b_.range('0', '9', next);
    const int32_t power = b_.split(digit, b_.range('0', '9', digit));  // no more than e99
    json::ByteSet e, sign;
    e.set('e').set('E');
    sign.set('+').set('-');
    const int32_t exponent = b_.split(next, b_.bytes(e, b_.split(power, b_.bytes(sign, power))));
    const int32_t rest = fraction(exponent);
    const int32_t whole = b_.integers(0, kMostDigits, rest);
    return b_.split(whole, b_.byte('-', whole));
  }

  // ---- schemas

  int32_t define(const std::string& pointer, const Json& schema) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) fail(pointer, "no value is valid");
      return b_.call(any(), 0);
    }
    if (!schema.is_object()) fail(pointer, "a schema is an object");
    if (schema.contains("$ref")) return reference(pointer, schema);
    if (schema.contains("const")) {
      only(pointer, schema, {"const", "type"});
      return b_.literal(text_of(schema["const"]), 0);
    }
    if (schema.contains("enum")) return one_of_texts(pointer, schema);
    for (const char* name : {"anyOf", "oneOf"})
      if (schema.contains(name)) return alternatives(pointer, schema, name);
    if (schema.contains("allOf")) {
      only(pointer, schema, {"allOf"});
      const Json& all = schema["allOf"];
      if (!all.is_array() || all.size() != 1)
        fail(pointer + "/allOf", "only one schema is supported");
      return pass(pointer + "/allOf/0", all[0]);
    }
    if (!schema.contains("type")) {
      if (schema.contains("properties")) return object(pointer, schema);
      if (schema.contains("items") || schema.contains("prefixItems"))
        return array_of(pointer, schema);
      only(pointer, schema, {});
      return b_.call(any(), 0);
    }
    const Json& type = schema["type"];
    if (type.is_string()) return typed(pointer, schema, type.get<std::string>(), false);
    if (!type.is_array() || type.empty())
      fail(pointer + "/type", "a string or an array of strings");
    std::vector<int32_t> ways;
    for (const Json& one : type) {
      if (!one.is_string()) fail(pointer + "/type", "a string or an array of strings");
      ways.push_back(typed(pointer, schema, one.get<std::string>(), true));
    }
    return b_.any_of(ways);
  }

  // A schema that stands for another one; both begin at the same byte.
  int32_t pass(const std::string& pointer, const Json& schema) {
    const int32_t id = value_at(pointer, schema);
    passes_[current_].push_back(pointer);
    return b_.call(id, 0);
  }

  int32_t reference(const std::string& pointer, const Json& schema) {
    only(pointer, schema, {"$ref"});
    const Json& target = schema["$ref"];
    if (!target.is_string() || !target.get_ref<const std::string&>().starts_with('#'))
      fail(pointer + "/$ref", "only references within the schema (#/..) are supported");
    const std::string path = target.get<std::string>().substr(1);
    try {
      return pass(path, root_.at(Json::json_pointer(path)));
    } catch (const Json::exception&) {
      fail(pointer + "/$ref", "there is nothing at this reference");
    }
  }

  static std::string text_of(const Json& value) { return value.dump(); }

  int32_t one_of_texts(const std::string& pointer, const Json& schema) {
    only(pointer, schema, {"enum", "type"});
    const Json& values = schema["enum"];
    if (!values.is_array() || values.empty()) fail(pointer + "/enum", "an array of values");
    std::vector<int32_t> ways;
    for (const Json& value : values) {
      if (schema.contains("type") && !has_type(value, schema["type"])) continue;
      ways.push_back(b_.literal(text_of(value), 0));
    }
    if (ways.empty()) fail(pointer + "/enum", "no value has the type asked for");
    return b_.any_of(ways);
  }

  static bool has_type(const Json& value, const Json& type) {
    if (type.is_array())
      return std::any_of(type.begin(), type.end(),
                         [&](const Json& one) { return has_type(value, one); });
    if (!type.is_string()) return false;
    const std::string name = type.get<std::string>();
    if (name == "integer") return value.is_number_integer();
    if (name == "number") return value.is_number();
    return name == value.type_name();
  }

  int32_t alternatives(const std::string& pointer, const Json& schema, const char* name) {
    only(pointer, schema, {name});
    const std::string at = pointer + "/" + name;
    const Json& all = schema[name];
    if (!all.is_array() || all.empty()) fail(at, "an array of schemas");
    if (std::string_view(name) == "oneOf") require_apart(at, all);
    std::vector<int32_t> ways;
    for (std::size_t i = 0; i < all.size(); ++i)
      ways.push_back(pass(at + "/" + std::to_string(i), all[i]));
    return b_.any_of(ways);
  }

  // oneOf means exactly one: alternatives that one value could match together are not supported.
  static void require_apart(const std::string& at, const Json& all) {
    std::set<std::string> seen;
    for (const Json& one : all) {
      std::string mark;
      if (one.is_object() && one.contains("const")) {
        mark = "value " + one["const"].dump();
      } else if (one.is_object() && one.contains("type") && one["type"].is_string()) {
        mark = one["type"].get<std::string>();
        if (mark == "integer") mark = "number";
      }
      if (mark.empty() || !seen.insert(mark).second)
        fail(at, "alternatives need types or constants that differ (use anyOf)");
    }
    for (const Json& one : all)
      if (one.contains("const") && seen.contains(type_mark(one["const"])))
        fail(at, "alternatives need types or constants that differ (use anyOf)");
  }
  static std::string type_mark(const Json& value) { return value.type_name(); }

  int32_t typed(const std::string& pointer, const Json& schema, const std::string& type,
                bool one_of_many) {
    // Of several types every keyword speaks of its own type only.
    if (one_of_many) only(pointer, schema, kEvery);
    if (type == "object") return object(pointer, schema, one_of_many);
    if (type == "array") return array_of(pointer, schema, one_of_many);
    if (type == "string") return text(pointer, schema, one_of_many);
    if (type == "integer") return integer(pointer, schema, one_of_many);
    if (type == "number") return real(pointer, schema, one_of_many);
    if (!one_of_many) only(pointer, schema, {"type"});
    if (type == "boolean") return b_.split(b_.literal("true", 0), b_.literal("false", 0));
    if (type == "null") return b_.literal("null", 0);
    fail(pointer + "/type", "no such type");
  }

  int32_t text(const std::string& pointer, const Json& schema, bool one_of_many) {
    if (!one_of_many) only(pointer, schema, {"type", "minLength", "maxLength"});
    const int64_t low = count(pointer, schema, "minLength", 0);
    const int64_t high = count(pointer, schema, "maxLength", kMany);
    if (low > high) fail(pointer + "/maxLength", "less than minLength");
    return b_.string(bound(low), bound(high), 0);
  }

  int32_t integer(const std::string& pointer, const Json& schema, bool one_of_many) {
    if (!one_of_many)
      only(pointer, schema, {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"});
    double low = -static_cast<double>(kMostDigits), high = static_cast<double>(kMostDigits);
    low = std::max(low, std::ceil(limit(pointer, schema, "minimum", low)));
    high = std::min(high, std::floor(limit(pointer, schema, "maximum", high)));
    if (schema.contains("exclusiveMinimum"))
      low = std::max(low, std::floor(limit(pointer, schema, "exclusiveMinimum", low)) + 1);
    if (schema.contains("exclusiveMaximum"))
      high = std::min(high, std::ceil(limit(pointer, schema, "exclusiveMaximum", high)) - 1);
    if (low > high) fail(pointer, "no integer lies within the bounds");
    if (low == -static_cast<double>(kMostDigits) && high == static_cast<double>(kMostDigits))
      return shared(any_integer_, [&] { return b_.integers(-kMostDigits, kMostDigits, 0); });
    return b_.integers(static_cast<int64_t>(low), static_cast<int64_t>(high), 0);
  }

  // Bounds that are whole numbers: those between two of them, with a fraction, and the outer ones.
  int32_t real(const std::string& pointer, const Json& schema, bool one_of_many) {
    if (!one_of_many) only(pointer, schema, {"type", "minimum", "maximum"});
    for (const char* name : {"exclusiveMinimum", "exclusiveMaximum"})
      if (schema.contains(name)) fail(pointer + "/" + name, "supported for the type integer only");
    if (!schema.contains("minimum") && !schema.contains("maximum"))
      return shared(any_number_, [&] { return number(0); });
    const auto whole = [&](const char* name, int64_t other) {
      const double value = limit(pointer, schema, name, static_cast<double>(other));
      if (value != std::trunc(value) || std::abs(value) > static_cast<double>(kMostDigits))
        fail(pointer + "/" + name, "only whole numbers of at most 15 digits are supported");
      return static_cast<int64_t>(value);
    };
    const int64_t low = whole("minimum", -kMostDigits), high = whole("maximum", kMostDigits);
    if (low > high) fail(pointer, "no number lies within the bounds");
    std::vector<int32_t> ways;
    const int32_t any_part = fraction(0), no_part = fraction(0, '0');
    ways.push_back(b_.integers(low, low, no_part));
    if (high != low) ways.push_back(b_.integers(high, high, no_part));
    if (high > 0 && high > low)
      ways.push_back(b_.integers(std::max<int64_t>(low, 0), high - 1, any_part));
    if (low < 0 && high > low)
      ways.push_back(b_.byte('-', b_.integers(std::max<int64_t>(-high, 0), -low - 1, any_part)));
    return b_.any_of(ways);
  }

  int32_t array_of(const std::string& pointer, const Json& schema, bool one_of_many = false) {
    if (!one_of_many)
      only(pointer, schema, {"type", "items", "prefixItems", "minItems", "maxItems"});
    int64_t low = count(pointer, schema, "minItems", 0);
    int64_t high = count(pointer, schema, "maxItems", kMany);
    const Json* items = schema.contains("items") ? &schema["items"] : nullptr;
    const int32_t item =
        items == nullptr ? any() : value_unless_false(pointer + "/items", *items, high);
    if (low > high) fail(pointer + "/maxItems", "less than minItems, or no items are allowed");
    if (!schema.contains("prefixItems")) return array(item, low, high);
    const Json& prefix = schema["prefixItems"];
    if (!prefix.is_array() || prefix.empty()) fail(pointer + "/prefixItems", "an array of schemas");
    const auto n = static_cast<int64_t>(prefix.size());
    high = count(pointer, schema, "maxItems", kMany);
    if (high < n) fail(pointer + "/maxItems", "less than there are prefixItems");
    if (items == nullptr || items->is_boolean()) {
      if (low > n) fail(pointer + "/minItems", "more than there are prefixItems");
      high = n;  // nothing asks for more
    }
    const int32_t end = b_.space(b_.byte(']', 0));
    const int32_t loop = b_.loop(
        bound(std::max<int64_t>(low - n, 0)), high == kMany ? kMany : bound(high - n),
        [&](int32_t next) { return b_.byte(',', b_.space(b_.call(item, next))); }, end);
    const int32_t begin = b_.size();
    int32_t place = loop;
    for (int64_t i = n; i-- > 0;) {
      const auto index = static_cast<std::size_t>(i);
      place =
          b_.call(value_at(pointer + "/prefixItems/" + std::to_string(i), prefix[index]), place);
      if (i > 0) place = b_.byte(',', b_.space(place));
    }
    place = b_.byte('[', b_.space(place));
    b_.mark(begin, loop, false);
    return place;
  }

  // items: false allows none.
  int32_t value_unless_false(const std::string& pointer, const Json& schema, int64_t& high) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) high = 0;
      return any();
    }
    return value_at(pointer, schema);
  }

  int32_t object(const std::string& pointer, const Json& schema, bool one_of_many = false) {
    if (!one_of_many)
      only(pointer, schema, {"type", "properties", "required", "additionalProperties"});
    const Json none = Json::object();
    const Json& properties = schema.contains("properties") ? schema["properties"] : none;
    if (!properties.is_object()) fail(pointer + "/properties", "an object of schemas");
    std::vector<std::string> required;
    if (schema.contains("required")) {
      if (!schema["required"].is_array()) fail(pointer + "/required", "an array of names");
      for (const Json& name : schema["required"]) {
        if (!name.is_string()) fail(pointer + "/required", "an array of names");
        if (!properties.contains(name.get<std::string>()))
          fail(pointer + "/required", "a name that is not among the properties");
        required.push_back(name.get<std::string>());
      }
    }
    const Json* more =
        schema.contains("additionalProperties") ? &schema["additionalProperties"] : nullptr;
    if (more != nullptr && !more->is_boolean() && !more->is_object())
      fail(pointer + "/additionalProperties", "a schema or a boolean");
    if (properties.empty()) {
      if (more != nullptr && more->is_boolean() && !more->get<bool>())
        return b_.byte('{', b_.space(b_.byte('}', 0)));
      const bool free = more == nullptr || more->is_boolean();
      return free_object(free ? any() : value_at(pointer + "/additionalProperties", *more));
    }
    return members(pointer, properties, required);
  }

  // In the schema's order; `begun`: one has been written, so that a comma stands before the next.
  int32_t members(const std::string& pointer, const Json& properties,
                  const std::vector<std::string>& required) {
    const int32_t end = b_.byte('}', 0);
    int32_t first = end, begun = b_.space(end);  // white space behind the brace comes below
    for (std::size_t i = properties.size(); i-- > 0;) {
      const auto member = std::next(properties.begin(), static_cast<std::ptrdiff_t>(i));
      const int32_t value =
          value_at(pointer + "/properties/" + escaped(member.key()), member.value());
      const int32_t pair =
          b_.literal(Json(member.key()).dump() + ":", b_.space(b_.call(value, begun)));
      const int32_t next = b_.byte(',', b_.space(pair));
      const bool must = std::find(required.begin(), required.end(), member.key()) != required.end();
      first = must ? pair : b_.split(first, pair);
      begun = must ? next : b_.split(begun, next);
    }
    return b_.byte('{', b_.space(first));
  }

  // ---- keywords

  // Every keyword is among these or says nothing of the value.
  static void only(const std::string& pointer, const Json& schema,
                   const std::set<std::string>& known) {
    for (const auto& [name, value] : schema.items())
      if (!known.contains(name) && !kAnnotations.contains(name))
        fail(pointer + "/" + escaped(name), "the keyword is not supported here");
  }

  static int64_t count(const std::string& pointer, const Json& schema, const char* name,
                       int64_t otherwise) {
    if (!schema.contains(name)) return otherwise;
    const Json& value = schema[name];
    if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(kMostItems))
      fail(pointer + "/" + name, "an integer from 0 to " + std::to_string(kMostItems));
    return value.get<int64_t>();
  }

  static double limit(const std::string& pointer, const Json& schema, const char* name,
                      double otherwise) {
    if (!schema.contains(name)) return otherwise;
    if (!schema[name].is_number()) fail(pointer + "/" + name, "a number");
    return schema[name].get<double>();
  }

  // Schemas that only stand for each other, in a circle, stand for nothing.
  void check_cycles() const {
    std::set<std::string> done;
    for (const auto& [from, unused] : passes_) {
      std::set<std::string> path;
      walk(from, path, done);
    }
  }
  void walk(const std::string& at, std::set<std::string>& path, std::set<std::string>& done) const {
    if (done.contains(at)) return;
    if (!path.insert(at).second) fail(at, "the schema refers to itself without a value between");
    if (const auto found = passes_.find(at); found != passes_.end())
      for (const std::string& to : found->second) walk(to, path, done);
    path.erase(at);
    done.insert(at);
  }

  static inline const std::set<std::string> kEvery = {"type",
                                                      "properties",
                                                      "required",
                                                      "additionalProperties",
                                                      "items",
                                                      "prefixItems",
                                                      "minItems",
                                                      "maxItems",
                                                      "minLength",
                                                      "maxLength",
                                                      "minimum",
                                                      "maximum",
                                                      "exclusiveMinimum",
                                                      "exclusiveMaximum"};

  struct Waiting {
    std::string pointer;
    const Json* schema;
    int32_t id;
  };

  const Json& root_;
  Builder b_;
  std::map<std::string, int32_t> values_;
  std::vector<Waiting> waiting_;
  std::map<std::string, std::vector<std::string>> passes_;
  std::string current_;
  int32_t any_ = -1, any_integer_ = -1, any_number_ = -1;
};

}  // namespace

JsonGrammar::JsonGrammar(std::unique_ptr<const json::Program> program)
    : program_(std::move(program)) {}
JsonGrammar::~JsonGrammar() = default;

int64_t JsonGrammar::least_bytes() const { return program_->need(program_->start, 0); }

std::shared_ptr<const JsonGrammar> JsonGrammar::any_object() {
  const Json none = Json::object();
  return std::make_shared<JsonGrammar>(
      std::make_unique<const json::Program>(Compiler(none).any_object()));
}

std::shared_ptr<const JsonGrammar> JsonGrammar::from_schema(const nlohmann::ordered_json& schema) {
  if (deeper_than(schema, kMaxDepth))
    throw SchemaError("", "the schema is more than " + std::to_string(kMaxDepth) + " levels deep");
  return std::make_shared<JsonGrammar>(
      std::make_unique<const json::Program>(Compiler(schema).compile()));
}

}  // namespace crumb

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "engine/json_grammar.h"
#include "engine/json_keywords.h"
#include "engine/json_numbers.h"
#include "engine/json_pattern.h"
#include "engine/json_program.h"
#include "engine/json_schema.h"
#include "models/json.h"

namespace crumb {
namespace json {
namespace {

constexpr int64_t kMostDistinct = 64;
constexpr int kMaxDepth = 64;

bool deeper_than(const Json& value, int levels) {
  if (!value.is_structured()) return false;
  return levels == 0 || std::any_of(value.begin(), value.end(),
                                    [&](const Json& one) { return deeper_than(one, levels - 1); });
}

}  // namespace

class SchemaCompiler::State {
 public:
  explicit State(Builder& builder) : b_(builder) {}

  int32_t add(const Json& schema, const std::string& place) {
    if (deeper_than(schema, kMaxDepth))
      fail(place, "the schema is more than " + std::to_string(kMaxDepth) + " levels deep");
    root_ = &schema;
    place_ = place;
    const int32_t value = value_at(place, schema);
    while (!waiting_.empty()) {
      const auto [pointer, one, id] = waiting_.back();
      waiting_.pop_back();
      current_ = pointer;
      b_.define(id, define(pointer, *one));
    }
    check_cycles();
    return value;
  }

  int32_t any_object() {
    const int32_t object = b_.value();
    b_.define(object, free_object(any()));
    return object;
  }

  void check(const Program& program) const {
    for (const auto& [pointer, id] : values_)
      if (program.costs[static_cast<std::size_t>(id)] >= kNever)
        fail(pointer, "no finite value is valid");
  }

 private:
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
                               any_number(b_, 0), b_.literal("true", 0), b_.literal("false", 0),
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

  // ---- schemas

  int32_t define(const std::string& pointer, const Json& schema) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) fail(pointer, "no value is valid");
      return b_.call(any(), 0);
    }
    if (!schema.is_object()) fail(pointer, "a schema is an object");
    // It would change what references mean.
    if (pointer != place_ && schema.contains("$id"))
      fail(pointer + "/$id", "supported at the root");
    if (schema.contains("$ref")) return reference(pointer, schema);
    if (schema.contains("const")) {
      only(pointer, schema, {"const", "type"});
      if (schema.contains("type") && !has_type(schema["const"], schema["type"]))
        fail(pointer + "/const", "a value of the type asked for");
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
      return pass(place_ + path, root_->at(Json::json_pointer(path)));
    } catch (const Json::exception&) {
      fail(pointer + "/$ref", "there is nothing at this reference");
    }
  }

  static std::string text_of(const Json& value) { return value.dump(); }

  int32_t one_of_texts(const std::string& pointer, const Json& schema) {
    std::vector<int32_t> ways;
    for (const Json* value : values_of(pointer, schema))
      ways.push_back(b_.literal(text_of(*value), 0));
    return b_.any_of(ways);
  }

  static std::vector<const Json*> values_of(const std::string& pointer, const Json& schema) {
    only(pointer, schema, {"enum", "type"});
    const Json& values = schema["enum"];
    if (!values.is_array() || values.empty()) fail(pointer + "/enum", "an array of values");
    std::vector<const Json*> out;
    for (const Json& value : values)
      if (!schema.contains("type") || has_type(value, schema["type"])) out.push_back(&value);
    if (out.empty()) fail(pointer + "/enum", "no value has the type asked for");
    return out;
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
    if (!one_of_many)
      only(pointer, schema, {"type", "minLength", "maxLength", "pattern", "format"});
    const int64_t low = count(pointer, schema, "minLength", 0);
    const int64_t high = count(pointer, schema, "maxLength", kMany);
    if (low > high) fail(pointer + "/maxLength", "less than minLength");
    const char* name = schema.contains("pattern") ? "pattern" : "format";
    if (!schema.contains(name)) return b_.string(bound(low), bound(high), 0);
    if (schema.contains("pattern") && schema.contains("format"))
      fail(pointer + "/format", "not supported beside a pattern");
    if (!schema[name].is_string()) fail(pointer + "/" + name, "a string");
    std::string pattern = schema[name].get<std::string>();
    if (std::string_view(name) == "format") {
      pattern = pattern_of_format(pattern);
      if (pattern.empty()) fail(pointer + "/format", "this format is not supported");
    }
    try {
      return pattern_string(b_, pattern, bound(low), bound(high), 0);
    } catch (const PatternError& error) {
      fail(pointer + "/" + name, error.what());
    }
  }

  int32_t integer(const std::string& pointer, const Json& schema, bool one_of_many) {
    if (!one_of_many) only(pointer, schema, kOfNumbers);
    double low = -static_cast<double>(kMostDigits), high = static_cast<double>(kMostDigits);
    low = std::max(low, std::ceil(limit(pointer, schema, "minimum", low)));
    high = std::min(high, std::floor(limit(pointer, schema, "maximum", high)));
    if (schema.contains("exclusiveMinimum"))
      low = std::max(low, std::floor(limit(pointer, schema, "exclusiveMinimum", low)) + 1);
    if (schema.contains("exclusiveMaximum"))
      high = std::min(high, std::ceil(limit(pointer, schema, "exclusiveMaximum", high)) - 1);
    if (low > high) fail(pointer, "no integer lies within the bounds");
    if (schema.contains("multipleOf")) {
      const int32_t all = multiples(b_, static_cast<int64_t>(low), static_cast<int64_t>(high),
                                    step(pointer, schema), 0);
      if (all < 0) fail(pointer + "/multipleOf", "no multiple lies within the bounds");
      return all;
    }
    if (low == -static_cast<double>(kMostDigits) && high == static_cast<double>(kMostDigits))
      return shared(any_integer_, [&] { return b_.integers(-kMostDigits, kMostDigits, 0); });
    return b_.integers(static_cast<int64_t>(low), static_cast<int64_t>(high), 0);
  }

  static int64_t step(const std::string& pointer, const Json& schema) {
    const double value = limit(pointer, schema, "multipleOf", 1);
    if (value < 1 || value != std::trunc(value) || value > static_cast<double>(kMostDigits))
      fail(pointer + "/multipleOf", "only whole numbers from 1 are supported");
    auto rest = static_cast<int64_t>(value);
    while (rest % 10 == 0) rest /= 10;
    if (rest > kMaxStep)
      fail(pointer + "/multipleOf", "only numbers up to " + std::to_string(kMaxStep) +
                                        " and these times powers of ten are supported");
    return static_cast<int64_t>(value);
  }

  // Bounds that are whole numbers.
  int32_t real(const std::string& pointer, const Json& schema, bool one_of_many) {
    if (!one_of_many) only(pointer, schema, kOfNumbers);
    // Only integers have multiples that every reader agrees on.
    if (schema.contains("multipleOf")) return integer(pointer, schema, one_of_many);
    RealBounds bounds;
    bool bounded = false;
    const auto side = [&](const char* closed, const char* opened, int sign, int64_t& value,
                          bool& open) {
      for (const char* name : {closed, opened}) {
        if (!schema.contains(name)) continue;
        const int64_t whole = whole_limit(pointer, schema, name, kMostDigits);
        bounded = true;
        if (sign * whole < sign * value) continue;  // the other one is closer
        value = whole;
        open = name == opened;
      }
    };
    side("minimum", "exclusiveMinimum", 1, bounds.low, bounds.open_low);
    side("maximum", "exclusiveMaximum", -1, bounds.high, bounds.open_high);
    if (!bounded) return shared(any_number_, [&] { return any_number(b_, 0); });
    const int32_t all = real_between(b_, bounds, 0);
    if (all < 0) fail(pointer, "no number lies within the bounds");
    return all;
  }

  int32_t array_of(const std::string& pointer, const Json& schema, bool one_of_many = false) {
    if (!one_of_many)
      only(pointer, schema,
           {"type", "items", "prefixItems", "minItems", "maxItems", "uniqueItems"});
    int64_t low = count(pointer, schema, "minItems", 0);
    int64_t high = count(pointer, schema, "maxItems", kMany);
    const Json* items = schema.contains("items") ? &schema["items"] : nullptr;
    const int32_t item =
        items == nullptr ? any() : value_unless_false(pointer + "/items", *items, high);
    if (low > high) fail(pointer + "/maxItems", "less than minItems, or no items are allowed");
    if (is_unique(pointer, schema) && (high > 1 || schema.contains("prefixItems")))
      return distinct(pointer, schema, low, high);
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

  static bool is_unique(const std::string& pointer, const Json& schema) {
    if (!schema.contains("uniqueItems")) return false;
    if (!schema["uniqueItems"].is_boolean()) fail(pointer + "/uniqueItems", "true or false");
    return schema["uniqueItems"].get<bool>();
  }

  // Of an enum's values each at most once, in the enum's order; of other items nothing says that
  // they differ.
  int32_t distinct(const std::string& pointer, const Json& schema, int64_t low, int64_t high) {
    const Json* items = schema.contains("items") ? &schema["items"] : nullptr;
    if (items == nullptr || !items->is_object() || !items->contains("enum") ||
        schema.contains("prefixItems"))
      fail(pointer + "/uniqueItems", "supported where the items have an enum");
    const std::vector<const Json*> all = values_of(pointer + "/items", *items);
    if (std::ssize(all) > kMostDistinct)
      fail(pointer + "/items/enum", "at most " + std::to_string(kMostDistinct) + " values");
    std::vector<nlohmann::json> values;  // without an order of keys: equal is equal
    for (const Json* one : all)
      if (nlohmann::json value = *one;
          std::find(values.begin(), values.end(), value) == values.end())
        values.push_back(std::move(value));
    const auto n = std::ssize(values);
    if (low > n) fail(pointer + "/minItems", "more than there are values");
    // ways[k]: from the value at hand on, with k written.
    std::vector<int32_t> ways(static_cast<std::size_t>(n) + 1, -1);
    const int32_t close = b_.byte(']', 0), end = b_.space(close);
    for (int64_t k = low; k <= std::min(n, high); ++k)
      ways[static_cast<std::size_t>(k)] = k == 0 ? close : end;
    for (int64_t i = n; i-- > 0;)
      for (int64_t k = 0; k <= i; ++k) {
        int32_t& way = ways[static_cast<std::size_t>(k)];
        const int32_t on = ways[static_cast<std::size_t>(k) + 1];
        if (on < 0) continue;
        int32_t take = b_.literal(values[static_cast<std::size_t>(i)].dump(), on);
        if (k > 0) take = b_.byte(',', b_.space(take));
        way = way < 0 ? take : b_.split(way, take);
      }
    return b_.byte('[', b_.space(ways[0]));
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
    const std::vector<std::string> required = names_of(pointer, schema, "required");
    const Json* more =
        schema.contains("additionalProperties") ? &schema["additionalProperties"] : nullptr;
    if (more != nullptr && !more->is_boolean() && !more->is_object())
      fail(pointer + "/additionalProperties", "a schema or a boolean");
    const bool closed = more != nullptr && more->is_boolean() && !more->get<bool>();
    const auto other = [&] {
      return more == nullptr || more->is_boolean()
                 ? any()
                 : value_at(pointer + "/additionalProperties", *more);
    };
    std::vector<Member> all;
    for (const auto& [name, value] : properties.items()) {
      const bool must = std::find(required.begin(), required.end(), name) != required.end();
      all.push_back({name, value_at(pointer + "/properties/" + escaped(name), value), must});
    }
    for (const std::string& name : required) {
      if (properties.contains(name)) continue;
      if (closed) fail(pointer + "/required", "a name that no property may have");
      all.push_back({name, other(), true});
    }
    if (!all.empty()) return members(all);
    return closed ? b_.byte('{', b_.space(b_.byte('}', 0))) : free_object(other());
  }

  struct Member {
    std::string name;
    int32_t value;
    bool must;
  };

  // In their order; `begun`: one has been written, so that a comma stands before the next.
  int32_t members(const std::vector<Member>& all) {
    const int32_t end = b_.byte('}', 0);
    int32_t first = end, begun = b_.space(end);  // white space behind the brace comes below
    for (std::size_t i = all.size(); i-- > 0;) {
      const Member& member = all[i];
      const int32_t pair =
          b_.literal(Json(member.name).dump() + ":", b_.space(b_.call(member.value, begun)));
      const int32_t next = b_.byte(',', b_.space(pair));
      first = member.must ? pair : b_.split(first, pair);
      begun = member.must ? next : b_.split(begun, next);
    }
    return b_.byte('{', b_.space(first));
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

  static inline const std::set<std::string> kOfNumbers = {
      "type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"};
  static inline const std::set<std::string> kEvery = {"type",
                                                      "properties",
                                                      "required",
                                                      "additionalProperties",
                                                      "items",
                                                      "prefixItems",
                                                      "minItems",
                                                      "maxItems",
                                                      "uniqueItems",
                                                      "pattern",
                                                      "format",
                                                      "multipleOf",
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

  Builder& b_;
  const Json* root_ = nullptr;  // of the schema at hand, and where it stands
  std::string place_;
  std::map<std::string, int32_t> values_;
  std::vector<Waiting> waiting_;
  std::map<std::string, std::vector<std::string>> passes_;
  std::string current_;
  int32_t any_ = -1, any_integer_ = -1, any_number_ = -1;
};

SchemaCompiler::SchemaCompiler(Builder& builder) : state_(new State(builder)) {}
SchemaCompiler::~SchemaCompiler() = default;
int32_t SchemaCompiler::add(const Json& schema, const std::string& place) {
  return state_->add(schema, place);
}
int32_t SchemaCompiler::any_object() { return state_->any_object(); }
void SchemaCompiler::check(const Program& program) const { state_->check(program); }

}  // namespace json

JsonGrammar::JsonGrammar(std::unique_ptr<const json::Program> program)
    : program_(std::move(program)) {}
JsonGrammar::~JsonGrammar() = default;

int64_t JsonGrammar::least_bytes() const { return program_->need(program_->start, 0); }

std::shared_ptr<const JsonGrammar> JsonGrammar::any_object() {
  json::Builder builder;
  json::SchemaCompiler compiler(builder);
  const int32_t root = compiler.any_object();
  return std::make_shared<JsonGrammar>(std::make_unique<const json::Program>(builder.finish(root)));
}

std::shared_ptr<const JsonGrammar> JsonGrammar::from_schema(const nlohmann::ordered_json& schema) {
  json::Builder builder;
  json::SchemaCompiler compiler(builder);
  const int32_t root = compiler.add(schema, "");
  auto program = std::make_unique<const json::Program>(builder.finish(root));
  compiler.check(*program);
  return std::make_shared<JsonGrammar>(std::move(program));
}

}  // namespace crumb

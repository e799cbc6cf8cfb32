// Texts held to a schema: what fits, what does not, and that whatever is written under it is valid.
#include "engine/json_grammar.h"
#include "models/json.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/json_matcher.h"
#include "engine/json_program.h"
#include "engine/rng.h"
#include "engine/sampler.h"
#include "tests/engine/tiny.h"

namespace crumb {
namespace {

using Json = nlohmann::ordered_json;

class Grammar : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    engine_ = test::tiny_engine({"f32", 32, 0});
    trie_ = std::make_shared<TokenTrie>(engine_->tokenizer());
  }
  static void TearDownTestSuite() {
    engine_.reset();
    trie_.reset();
  }
  static JsonMatcher matcher(std::shared_ptr<const JsonGrammar> grammar) {
    return {std::move(grammar), engine_->tokenizer(), trie_, engine_->stop_tokens()};
  }
  static JsonMatcher matcher(const char* schema) {
    return matcher(JsonGrammar::from_schema(Json::parse(schema)));
  }
  static bool fits(const std::shared_ptr<const JsonGrammar>& grammar, std::string_view text) {
    JsonMatcher m = matcher(grammar);
    return m.accept_bytes(text) && m.may_end();
  }

  static inline std::shared_ptr<const Engine> engine_;
  static inline std::shared_ptr<const TokenTrie> trie_;
};

struct Case {
  const char* schema;
  std::vector<const char*> good, bad;
};

const Case kCases[] = {
    {R"({"type":"boolean"})", {"true", "false"}, {"True", "null", "truefalse", "\"true\"", "tru"}},
    {R"({"type":"null"})", {"null"}, {"0", ""}},
    {R"({"type":"integer"})",
     {"0", "-1", "7", "10", "-905", "123456789012345"},
     {"", "-", "01", "1.0", "1e3", "+1", "-0", "1234567890123456"}},
    {R"({"type":"integer","minimum":3,"maximum":120})",
     {"3", "9", "10", "99", "100", "120"},
     {"2", "121", "0", "-3", "1200", "003"}},
    {R"({"type":"integer","minimum":-20,"maximum":5})",
     {"-20", "-19", "-9", "-1", "0", "5"},
     {"-21", "6", "-0", "-100", "10"}},
    {R"({"type":"integer","exclusiveMinimum":0,"exclusiveMaximum":10})", {"1", "9"}, {"0", "10"}},
    {R"({"type":"integer","minimum":2.5,"maximum":4.5})", {"3", "4"}, {"2", "5"}},
    {R"({"type":"number"})",
     {"0", "-0.5", "3.14159", "1e10", "2E-3", "1.5e+99", "-12"},
     {".5", "1.", "01", "1e", "1e100", "--1", "NaN", "0x1"}},
    {R"({"type":"number","minimum":0,"maximum":1})",
     {"0", "0.25", "1", "1.0", "0.999"},
     {"1.01", "-0.1", "2", "1e0"}},
    {R"({"type":"number","minimum":-2,"maximum":-1})",
     {"-1", "-2", "-1.5", "-2.00"},
     {"-0.5", "-2.5", "1", "0"}},
    {R"({"type":"string"})",
     {R"("")", R"("a b")", R"("\n\"\\\u00e9")", "\"\xC3\xA9\xF0\x9F\x98\x80\""},
     {"\"", "a", R"("\x")", "\"\n\"", "\"\xC3\"", "\"\xED\xA0\x80\"", R"("\ud800")", R"("a"b)",
      "\"\xC0\x80\"", "\"\xF4\x90\x80\x80\""}},
    {R"({"type":"string","minLength":2,"maxLength":3})",
     {R"("ab")", R"("abc")", "\"\xC3\xA9\xC3\xA9\"", R"("\n\u0041b")"},
     {R"("a")", R"("abcd")", R"("")", "\"\xC3\xA9\""}},
    {R"({"enum":["red","green",3,null,{"a":[1,2]}]})",
     {R"("red")", R"("green")", "3", "null", R"({"a":[1,2]})"},
     {R"("blue")", "red", "4", R"({"a":[1,3]})"}},
    {R"({"enum":["a",1,true],"type":["string","boolean"]})", {R"("a")", "true"}, {"1"}},
    {R"({"const":"x\ny"})", {R"("x\ny")"}, {R"("x")"}},
    {R"({"type":"array","items":{"type":"integer"}})",
     {"[]", "[1]", "[1,2]", "[1, 2,\n  3\n]", "[ ]"},
     {"[1,]", "[,1]", "[1 ,2]", "[1", "1", "[\"a\"]"}},
    {R"({"type":"array","items":{"type":"integer","minimum":0,"maximum":9},"minItems":2,"maxItems":3})",
     {"[1,2]", "[1,2,3]"},
     {"[]", "[1]", "[1,2,3,4]"}},
    {R"({"type":"array","items":{"enum":[1]},"minItems":1})", {"[1]", "[1,1,1,1]"}, {"[]"}},
    {R"({"type":"array","items":false})", {"[]"}, {"[1]"}},
    {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"type":"null"},"maxItems":3})",
     {R"([1,"a"])", R"([1,"a",null])"},
     {"[]", "[1]", R"(["a",1])", R"([1,"a",null,null])"}},
    {R"({"type":"array","prefixItems":[{"type":"integer"}]})", {"[1]"}, {"[]", "[1,2]"}},
    {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"c":{"type":"null"}},
         "required":["b"]})",
     {R"({"b":"x"})", R"({"a":1,"b":"x"})", R"({"b": "x", "c": null})",
      "{\n  \"a\": 1,\n  \"b\": \"\",\n  \"c\": null\n}"},
     {"{}", R"({"a":1})", R"({"b":"x","a":1})", R"({"a":1,"a":2,"b":"x"})", R"({"b":"x","d":1})",
      R"({"b":"x",})", R"({"a":1 "b":"x"})", R"({,"b":"x"})"}},
    {R"({"type":"object","properties":{"a":{"type":"null"}}})", {"{}", "{ }", R"({"a":null})"}, {}},
    {R"({"type":"object","additionalProperties":{"type":"integer"}})",
     {"{}", R"({"x":1})", R"({"x":1, "y":2})"},
     {R"({"x":"1"})", R"({x:1})", R"({"x":1,})"}},
    {R"({"type":"object","additionalProperties":false})", {"{}"}, {R"({"a":1})"}},
    {R"({"anyOf":[{"type":"integer"},{"type":"string"}]})", {"1", R"("a")"}, {"null", "1.5"}},
    {R"({"oneOf":[{"type":"null"},{"type":"integer"},{"const":"x"}]})",
     {"null", "3", R"("x")"},
     {R"("y")"}},
    {R"({"type":["integer","null"],"minimum":5})", {"5", "null"}, {"4", R"("a")"}},
    {R"({"allOf":[{"type":"integer"}],"description":"d"})", {"1"}, {"a"}},
    {R"({"$defs":{"list":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/list"},{"type":"null"}]}},
         "required":["v","next"]}},"$ref":"#/$defs/list"})",
     {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
     {R"({"v":1})", R"({"v":1,"next":{"v":2}})"}},
    {R"({"type":"object","properties":{"children":{"type":"array","items":{"$ref":"#"}}},"required":["children"]})",
     {R"({"children":[]})", R"({"children":[{"children":[]},{"children":[]}]})"},
     {R"({"children":[{}]})"}},
    {R"({"type":"object","properties":{"a":{"const":1}},"required":["b","a"],"additionalProperties":{"type":"null"}})",
     {R"({"a":1,"b":null})"},
     {R"({"a":1})", R"({"b":null,"a":1})"}},
    {R"({"type":"object","required":["x"]})", {R"({"x":[1]})"}, {"{}"}},
    {R"({"type":"integer","multipleOf":7})",
     {"0", "7", "-14", "343", "999999999999994"},
     {"1", "-8", "07", "7.0", "-0", "9999999999999990"}},
    {R"({"type":"integer","multipleOf":12,"minimum":-40,"maximum":130})",
     {"-36", "-12", "0", "12", "96", "108", "120"},
     {"-48", "132", "6", "121"}},
    {R"({"type":"number","multipleOf":250,"exclusiveMinimum":0})",
     {"250", "1000", "250000"},
     {"0", "125", "250.0", "-250"}},
    {R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":2})",
     {"0.5", "1", "1.0", "1.99", "0.000000000000001"},
     {"0", "0.0", "2", "2.0", "-0.5"}},
    {R"({"type":"number","exclusiveMinimum":-2,"maximum":-1})",
     {"-1", "-1.0", "-1.999"},
     {"-2", "-2.0", "-0.9"}},
    {R"({"type":"number","minimum":-1,"exclusiveMaximum":0})",
     {"-1", "-0.5", "-0.01"},
     {"0", "-0", "-0.0", "-1.1"}},
    {R"({"type":"number","exclusiveMinimum":3})", {"3.5", "4", "3.01"}, {"3", "3.00", "2.9"}},
    {R"({"type":"array","items":{"enum":["a","b","c",1,1.0]},"uniqueItems":true,"minItems":1,"maxItems":3})",
     {R"(["a"])", R"(["a","c"])", R"(["b", 1])", R"(["a","b","c"])"},
     {"[]", R"(["a","a"])", R"(["c","a"])", R"(["a","b","c",1])", "[1,1.0]", "[1.0]"}},
    {R"({"type":"array","items":{"enum":[1,2]},"uniqueItems":true})",
     {"[]", "[1]", "[1,2]", "[2]"},
     {"[2,1]", "[1,]"}},
    {R"({"type":"array","items":{"type":"string"},"uniqueItems":true,"maxItems":1})",
     {"[]", R"(["x"])"},
     {R"(["x","y"])"}},
    {R"({"type":"string","pattern":"^[a-z]{2,3}-\\d+$"})",
     {R"("ab-1")", R"("abc-907")"},
     {R"("a-1")", R"("abcd-1")", R"("ab-")", R"("ab-1x")", R"("")"}},
    {R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")", "\"\\nb\xC3\xA9\""}, {R"("ac")"}},
    {R"({"type":"string","pattern":"^a|b$"})", {R"("ax")", R"("xb")"}, {R"("xa")", R"("bx")"}},
    {R"({"type":"string","pattern":"^(?:\"|\\\\|\t)+$"})",
     {R"("\"")", R"("\\\t")"},
     {R"("a")", R"("\n")"}},
    {R"({"type":"string","pattern":"^[^a-y]*$","minLength":1,"maxLength":2})",
     {R"("z")", R"("Zz")", "\"\xC3\xA9\"", "\"\xF0\x9F\x98\x80z\""},
     {R"("")", R"("a")", R"("zzz")"}},
    {R"({"type":"string","pattern":"^[\u00e0-\u00ff]{2}$"})",
     {"\"\xC3\xA0\xC3\xBF\""},
     {"\"\xC3\xA0\"", "\"\xC3\x9F\xC3\xBF\"", R"("ab")"}},
    {R"({"type":"string","pattern":"^.{0,40}$","maxLength":3})",
     {R"("")", R"("abc")"},
     {R"("abcd")", R"("a\nb")"}},
    {R"({"type":"string","format":"date"})",
     {R"("2024-02-28")", R"("1999-12-31")"},
     {R"("2024-02-30")", R"("2024-13-01")", R"("24-01-01")", R"("2024-04-31")"}},
    {R"({"type":"string","format":"date-time"})",
     {R"("2024-02-28T23:59:59Z")", R"("2024-02-28T00:00:00.25+02:00")"},
     {R"("2024-02-28")", R"("2024-02-28T24:00:00Z")", R"("2024-02-28T00:00:00")"}},
    {R"({"type":"string","format":"uuid"})",
     {R"("01234567-89ab-cdef-0123-456789abcdef")"},
     {R"("01234567-89ab-cdef-0123-456789abcde")"}},
    {R"({"type":"string","format":"ipv4"})",
     {R"("0.10.199.255")"},
     {R"("256.1.1.1")", R"("1.1.1")", R"("01.1.1.1")"}},
    {R"({"type":"string","format":"email"})", {R"("a.b@c.de")"}, {R"("a@b")", R"("@c.de")"}},
    {R"({"type":"string","format":"time"})", {R"("23:00:59Z")"}, {R"("23:60:00Z")"}},
    {R"({"type":"string","format":"duration"})",
     {R"("P1DT2H")", R"("P3W")"},
     {R"("P")", R"("PT")"}},
    {R"({"type":["string","null"],"pattern":"^x$"})", {R"("x")", "null"}, {R"("y")"}},
    {"true", {"1", "[{}]", R"({"a":[1,{"b":null}]})"}, {"", "{", "[1}"}},
    {R"({"properties":{"a/b~c":{"const":1}},"required":["a/b~c"]})", {R"({"a/b~c":1})"}, {"{}"}},
};

TEST_F(Grammar, TakesWhatFitsAndNothingElse) {
  for (const Case& one : kCases) {
    SCOPED_TRACE(one.schema);
    const auto grammar = JsonGrammar::from_schema(Json::parse(one.schema));
    for (const char* text : one.good) EXPECT_TRUE(fits(grammar, text)) << text;
    for (const char* text : one.bad) EXPECT_FALSE(fits(grammar, text)) << text;
  }
  const auto object = JsonGrammar::any_object();
  for (const char* text : {"{}", R"({"a": [1, -2.5e3, {"b": null}], "c": "\u00e9"})", "{\n}"})
    EXPECT_TRUE(fits(object, text)) << text;
  for (const char* text : {"", "[]", "1", R"({"a"})", R"({"a":})", R"({"a":1}})"})
    EXPECT_FALSE(fits(object, text)) << text;
}

TEST_F(Grammar, WhatIsNotSupportedIsNamed) {
  const struct {
    const char *schema, *pointer;
  } table[] = {
      {R"({"type":"string","pattern":"(a"})", "/pattern"},
      {R"({"type":"string","pattern":5})", "/pattern"},
      {R"({"type":"string","pattern":"^ab$","minLength":3})", "/pattern"},
      {R"({"type":"string","pattern":"a","format":"date"})", "/format"},
      {R"({"type":"string","format":"idn-email"})", "/format"},
      {R"({"type":"object","properties":{"a":{"type":"number","multipleOf":0.1}}})",
       "/properties/a/multipleOf"},
      {R"({"type":"integer","multipleOf":257})", "/multipleOf"},
      {R"({"type":"integer","multipleOf":0})", "/multipleOf"},
      {R"({"type":"integer","multipleOf":7,"minimum":1,"maximum":6})", "/multipleOf"},
      {R"({"type":"number","exclusiveMinimum":0.5})", "/exclusiveMinimum"},
      {R"({"type":"number","exclusiveMinimum":1,"maximum":1})", ""},
      {R"({"const":1,"type":"string"})", "/const"},
      {R"({"properties":{"a":{"$id":"x","type":"null"}}})", "/properties/a/$id"},
      {R"({"type":"array","items":{"enum":[1,2]},"uniqueItems":true,"minItems":3})", "/minItems"},
      {R"({"type":"array","items":{"enum":[1]},"uniqueItems":1})", "/uniqueItems"},
      {R"({"type":"array","prefixItems":[{},{}],"items":false,"uniqueItems":true})",
       "/uniqueItems"},
      {R"({"type":"number","minimum":0.5})", "/minimum"},
      {R"({"type":"array","items":{"type":"string"},"uniqueItems":true})", "/uniqueItems"},
      {R"({"type":"object","minProperties":1})", "/minProperties"},
      {R"({"type":"object","patternProperties":{}})", "/patternProperties"},
      {R"({"not":{"type":"string"}})", "/not"},
      {R"({"if":{},"then":{}})", "/if"},
      {R"({"anyOf":[{"type":"string"}],"type":"string"})", "/type"},
      {R"({"oneOf":[{"type":"string"},{"minLength":3}]})", "/oneOf"},
      {R"({"oneOf":[{"type":"string"},{"const":"a"}]})", "/oneOf"},
      {R"({"oneOf":[{"type":"number"},{"type":"integer"}]})", "/oneOf"},
      {R"({"allOf":[{"type":"string"},{"type":"null"}]})", "/allOf"},
      {R"({"$ref":"http://example.com/x"})", "/$ref"},
      {R"({"$ref":"#/$defs/none"})", "/$ref"},
      {R"({"$ref":"#"})", ""},
      {R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"anyOf":[{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"})",
       "/$defs/a"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", ""},
      {R"({"type":"thing"})", "/type"},
      {R"({"type":5})", "/type"},
      {R"({"type":[]})", "/type"},
      {R"({"enum":[]})", "/enum"},
      {R"({"enum":5})", "/enum"},
      {R"({"type":"object","required":["a"],"additionalProperties":false})", "/required"},
      {R"({"type":"object","required":"a"})", "/required"},
      {R"({"type":"object","properties":{"a":5}})", "/properties/a"},
      {R"({"type":"object","properties":{"a":false},"required":["a"]})", "/properties/a"},
      {R"({"type":"string","minLength":3,"maxLength":2})", "/maxLength"},
      {R"({"type":"string","minLength":-1})", "/minLength"},
      {R"({"type":"array","minItems":2,"maxItems":1})", "/maxItems"},
      {R"({"type":"integer","minimum":5,"maximum":4})", ""},
      {"5", ""},
      {"false", ""},
  };
  for (const auto& row : table) {
    try {
      JsonGrammar::from_schema(Json::parse(row.schema));
      ADD_FAILURE() << row.schema;
    } catch (const SchemaError& error) {
      EXPECT_TRUE(error.pointer().starts_with(row.pointer))
          << row.schema << ": " << error.pointer();
    }
  }
}

TEST_F(Grammar, HostileSchemas) {
  Json deep = "x";
  for (int i = 0; i < 100; ++i) deep = Json{{"const", deep}};
  EXPECT_THROW(JsonGrammar::from_schema(deep), SchemaError);
  // Many ways at every byte: bounded work, and still right.
  Json many = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 200; ++i) many["properties"]["p" + std::to_string(i)] = {{"type", "integer"}};
  const auto grammar = JsonGrammar::from_schema(many);
  EXPECT_TRUE(fits(grammar, R"({"p0":1,"p7":2,"p199":3})"));
  EXPECT_FALSE(fits(grammar, R"({"p7":1,"p0":2})"));
  EXPECT_THROW(JsonGrammar::from_schema(Json::parse(R"({"type":"array","prefixItems":[{"enum":[")" +
                                                    std::string(300000, 'x') + "\"]}]}")),
               SchemaError)
      << "too large";
}

TEST_F(Grammar, ManyWaysToOnePlace) {
  Json defs;
  for (int i = 0; i < 50; ++i) {
    const Json next = {{"$ref", "#/$defs/d" + std::to_string(i + 1)}};
    defs["d" + std::to_string(i)] = {{"anyOf", Json::array({next, next})}};
  }
  defs["d50"] = {{"type", "integer"}};
  const auto grammar = JsonGrammar::from_schema({{"$defs", defs}, {"$ref", "#/$defs/d0"}});
  EXPECT_TRUE(fits(grammar, "12"));
  EXPECT_FALSE(fits(grammar, "1a"));
}

TEST_F(Grammar, PatternsThatAreNotSupportedOrTooLarge) {
  for (const char* pattern : {"(?=a)",
                              "(?!a)",
                              "(?<n>a)",
                              R"((a)\1)",
                              R"(\bx)",
                              R"(\p{L})",
                              "a**",
                              "a{2}{3}",
                              "{2}",
                              "*a",
                              "a{3,2}",
                              "a{1,1001}",
                              "(a",
                              "a)",
                              "[a",
                              "[]",
                              "[z-a]",
                              "a^b",
                              "a$b",
                              "(^a)",
                              R"(\ud800)",
                              R"(\u12)",
                              "\\",
                              "(a{0,1000}){0,1000}",
                              "^(.*a){30}.{12}$",
                              "(a|b)*a(a|b){20}"}) {
    const Json schema = {{"type", "string"}, {"pattern", pattern}};
    EXPECT_THROW(JsonGrammar::from_schema(schema), SchemaError) << pattern;
  }
}

TEST_F(Grammar, CallsOfFunctions) {
  const Json city = Json::parse(
      R"({"type":"object","properties":{"city":{"type":"string"}},"required":["city"]})");
  const std::vector<ToolFunction> two = {{"weather", &city}, {"now", nullptr}};
  const std::string call =
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": "
      "\"<tool_call>\"}}\n</tool_call>";
  const std::string other = R"(<tool_call>{"name":"now","arguments":{}}</tool_call>)";
  const auto may = JsonGrammar::tool_calls(two, {false, true});
  for (const std::string& text : {std::string(), std::string("<tool_cal l> <"), "Ah.\n" + call,
                                  call + "\n" + other, other + " done <<tool_call", "<" + call})
    EXPECT_TRUE(fits(may, text)) << text;
  for (const char* text : {"<tool_call>", "<tool_call>{}</tool_call>",
                           R"(<tool_call>{"name":"x","arguments":{}}</tool_call>)",
                           R"(<<tool_call>{"name":"weather","arguments":{}}</tool_call>)",
                           R"(<tool_call>{"name":"now","arguments":{}})"})
    EXPECT_FALSE(fits(may, text)) << text;
  EXPECT_EQ(may->least_bytes(), 0);
  const auto must = JsonGrammar::tool_calls(two, {true, true});
  EXPECT_TRUE(fits(must, call + "\n" + other));
  EXPECT_FALSE(fits(must, ""));
  EXPECT_FALSE(fits(must, "a" + call));
  EXPECT_EQ(must->least_bytes(), static_cast<int64_t>(other.size()));
  const auto one = JsonGrammar::tool_calls(two, {true, false});
  EXPECT_TRUE(fits(one, call));
  EXPECT_FALSE(fits(one, call + "\n" + other));
  JsonMatcher m = matcher(one);
  EXPECT_TRUE(m.accept_bytes(other));
  EXPECT_TRUE(m.must_end());
  const Json bad = {{"type", "object"}, {"properties", {{"a", {{"not", Json::object()}}}}}};
  for (const auto& [schema, pointer] :
       {std::pair<Json, std::string>{bad, "/1/parameters/properties/a/not"},
        {{{"type", "string"}}, "/1/parameters"}}) {
    try {
      JsonGrammar::tool_calls({{"now", nullptr}, {"f", &schema}}, {});
      ADD_FAILURE();
    } catch (const SchemaError& error) {
      EXPECT_EQ(error.pointer(), pointer);
    }
  }
}

// ---- the obvious validator; of patterns and formats tests/cli/serve_schema_test.py asks
// jsonschema

bool valid(const Json& value, const Json& schema, const Json& root);

bool has_type(const Json& value, const std::string& type) {
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  return type == value.type_name();
}

int64_t characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

bool valid_object(const Json& value, const Json& schema, const Json& root) {
  for (const auto& name : schema.value("required", Json::array()))
    if (!value.contains(name.get<std::string>())) return false;
  const Json properties = schema.value("properties", Json::object());
  for (const auto& [name, member] : value.items()) {
    const Json more = schema.value("additionalProperties", Json(true));
    if (!valid(member, properties.contains(name) ? properties[name] : more, root)) return false;
  }
  return true;
}

bool valid_array(const Json& value, const Json& schema, const Json& root) {
  if (value.size() < schema.value("minItems", 0u) ||
      value.size() > schema.value("maxItems", 1u << 30))
    return false;
  if (schema.value("uniqueItems", false))
    for (std::size_t i = 0; i < value.size(); ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (value[i] == value[j]) return false;
  const Json prefix = schema.value("prefixItems", Json::array());
  for (std::size_t i = 0; i < value.size(); ++i) {
    const Json item = i < prefix.size() ? prefix[i] : schema.value("items", Json(true));
    if (!valid(value[i], item, root)) return false;
  }
  return true;
}

bool valid(const Json& value, const Json& schema, const Json& root) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("$ref"))
    return valid(value, root.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))),
                 root);
  if (schema.contains("const") && value != schema["const"]) return false;
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return false;
  for (const char* name : {"anyOf", "oneOf", "allOf"}) {
    if (!schema.contains(name)) continue;
    const auto fits = std::count_if(schema[name].begin(), schema[name].end(),
                                    [&](const Json& one) { return valid(value, one, root); });
    if (fits == 0 || (std::string_view(name) == "oneOf" && fits != 1)) return false;
  }
  if (schema.contains("type")) {
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    if (std::none_of(types.begin(), types.end(),
                     [&](const Json& type) { return has_type(value, type.get<std::string>()); }))
      return false;
  }
  if (value.is_object()) return valid_object(value, schema, root);
  if (value.is_array()) return valid_array(value, schema, root);
  if (value.is_string()) {
    const int64_t n = characters(value.get<std::string>());
    return n >= schema.value("minLength", int64_t{0}) && n <= schema.value("maxLength", INT64_MAX);
  }
  if (!value.is_number()) return true;
  const double x = value.get<double>();
  if (schema.contains("multipleOf") && std::fmod(x, schema["multipleOf"].get<double>()) != 0)
    return false;
  return std::isfinite(x) && x >= schema.value("minimum", -1e300) &&
         x <= schema.value("maximum", 1e300) && x > schema.value("exclusiveMinimum", -1e300) &&
         x < schema.value("exclusiveMaximum", 1e300);
}

// A model that says anything at all writes what is valid, and is done within its tokens.
TEST_F(Grammar, WhateverIsWrittenIsValid) {
  const int64_t V = engine_->config().vocab;
  int written = 0;
  for (const Case& one : kCases) {
    const Json schema = Json::parse(one.schema);
    const auto grammar = JsonGrammar::from_schema(schema);
    for (uint64_t seed = 0; seed < 12; ++seed) {
      JsonMatcher m = matcher(grammar);
      SamplingOptions options;
      options.seed = seed;
      options.temperature = seed % 3 == 0 ? 0.0f : 1.0f;
      options.top_k = seed % 2 == 0 ? 0 : 20;
      options.top_p = 1;
      Sampler sampler(options, V);
      const int64_t tokens = grammar->least_bytes() + static_cast<int64_t>(seed * 7);
      std::string text;
      bool ended = false;
      for (int64_t i = 0; i < tokens && !ended; ++i) {
        std::vector<float> logits(static_cast<std::size_t>(V));
        for (std::size_t k = 0; k < logits.size(); ++k)
          logits[k] = static_cast<float>(uniform(seed * 1000 + static_cast<uint64_t>(i), k) * 3);
        m.set_budget(tokens - i);
        const int32_t id = sampler.sample(logits, {}, {}, m);
        ASSERT_GE(id, 0) << one.schema << " after " << text;
        ASSERT_TRUE(m.accept(id));
        ended =
            std::binary_search(engine_->stop_tokens().begin(), engine_->stop_tokens().end(), id);
        if (!ended) text += engine_->tokenizer().bytes(id);
        ended = ended || m.must_end();
      }
      ASSERT_TRUE(m.may_end()) << one.schema << ": " << text << " in " << tokens;
      const Json value = Json::parse(text, nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << text;
      ASSERT_TRUE(valid(value, schema, schema)) << one.schema << ": " << text;
      ++written;
    }
  }
  EXPECT_EQ(written, static_cast<int>(std::size(kCases)) * 12);
}

TEST_F(Grammar, AListIsAllThatIsAllowed) {
  const auto V = static_cast<int32_t>(engine_->config().vocab);
  int listed = 0;
  for (const char* begin : {"", "{", "{\"", "{\"na", "{\"name\":", "{\"name\": \"x\"",
                            "{\"name\":\"x\",\"n\":1", "{\"name\":\"x\",\"n\":12}"})
    for (const int64_t budget : {1000, 30, 4}) {
      JsonMatcher m = matcher(
          R"({"type":"object","properties":{"name":{"type":"string"},"n":{"type":"integer"}},"required":["name"]})");
      ASSERT_TRUE(m.accept_bytes(begin)) << begin;
      m.set_budget(budget);
      std::vector<int32_t> all, list;
      for (int32_t id = 0; id < V; ++id)
        if (m.allows(id)) all.push_back(id);
      if (all.empty() || !m.list(list)) continue;
      std::sort(list.begin(), list.end());
      EXPECT_EQ(list, all) << begin << " with " << budget;
      ++listed;
    }
  EXPECT_GE(listed, 8);
}

TEST_F(Grammar, EndsOnlyWhereTheTextIsComplete) {
  JsonMatcher m = matcher(R"({"type":"integer","minimum":0,"maximum":99})");
  const int32_t stop = engine_->stop_tokens().front();
  EXPECT_FALSE(m.allows(stop));
  EXPECT_EQ(m.need(), 1);
  ASSERT_TRUE(m.accept_bytes("1"));
  EXPECT_TRUE(m.may_end());
  EXPECT_FALSE(m.must_end());
  EXPECT_TRUE(m.allows(stop));
  EXPECT_EQ(m.need(), 0);
  ASSERT_TRUE(m.accept_bytes("2"));
  EXPECT_TRUE(m.must_end());
  EXPECT_FALSE(m.accept_bytes("3"));
  EXPECT_TRUE(m.may_end()) << "a refusal changes nothing";
}

TEST_F(Grammar, NeedIsTheShortestRest) {
  const auto need = [](const char* schema, const char* begin) {
    JsonMatcher m = matcher(schema);
    EXPECT_TRUE(m.accept_bytes(begin));
    return m.need();
  };
  EXPECT_EQ(need(R"({"type":"string","minLength":5})", ""), 7);
  EXPECT_EQ(need(R"({"type":"string","minLength":5})", "\"ab"), 4);
  EXPECT_EQ(need(R"({"type":"string","minLength":5})", "\"ab\xF0\x9F"), 5);
  EXPECT_EQ(need(R"({"type":"array","items":{"type":"boolean"},"minItems":3})", ""), 16);
  EXPECT_EQ(need(R"({"type":"array","items":{"type":"boolean"},"minItems":3})", "[true"), 11);
  EXPECT_EQ(need(R"({"type":"array","items":{"type":"boolean"},"minItems":3})", "[true,false,tr"),
            3);
  EXPECT_EQ(need(R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]})", ""),
            7);
  EXPECT_EQ(need("true", "[[[{\"a\":"), 5);
}

// The filter and a mask over the logits are the same thing.
TEST(FilteredSampler, IsTheChainOverWhatIsAllowed) {
  struct Some : TokenFilter {
    bool listing;
    std::vector<int32_t> all;
    bool allows(int32_t id) override { return std::find(all.begin(), all.end(), id) != all.end(); }
    bool list(std::vector<int32_t>& ids) override {
      ids = all;
      return listing;
    }
  };
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SamplingOptions options;
    options.seed = seed;
    options.temperature = seed % 4 == 0 ? 0.0f : 0.9f;
    options.top_k = seed % 3 == 0 ? 0 : 5;
    options.top_p = seed % 2 == 0 ? 1.0f : 0.7f;
    options.min_p = seed % 5 == 0 ? 0.1f : 0.0f;
    options.frequency_penalty = seed % 7 == 0 ? 0.5f : 0.0f;
    std::vector<float> logits(100), masked(100, -1e30f);
    for (std::size_t i = 0; i < 100; ++i) logits[i] = static_cast<float>(8 * uniform(seed, i));
    Some filter;
    for (int32_t id = 0; id < 100; id += 1 + static_cast<int32_t>(seed % 9)) {
      filter.all.push_back(id);
      masked[static_cast<std::size_t>(id)] = logits[static_cast<std::size_t>(id)];
    }
    const std::vector<int32_t> history = {0, 5, 0};
    Sampler plain(options, 100), listing(options, 100), asking(options, 100);
    for (int step = 0; step < 5; ++step) {
      const int32_t want = plain.sample(masked, history);
      filter.listing = true;
      EXPECT_EQ(listing.sample(logits, history, {}, filter), want) << seed;
      filter.listing = false;
      EXPECT_EQ(asking.sample(logits, history, {}, filter), want) << seed;
    }
  }
  Some none;
  none.listing = true;
  EXPECT_EQ(Sampler({}, 10).sample(std::vector<float>(10), {}, {}, none), -1);
}

}  // namespace
}  // namespace crumb

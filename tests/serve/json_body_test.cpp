#include "apps/serve/json_body.h"

#include <gtest/gtest.h>

#include <chrono>

namespace crumb::serve {
namespace {

const Limits kLimits;

std::string refusal(const std::string& text) {
  try {
    parse_body(text, kLimits);
    return "";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.code, "invalid_json");
    EXPECT_TRUE(Json::accept(error.body()));
    return error.message;
  }
}

TEST(JsonBody, GivesWhatTheLibraryGives) {
  for (const char* text :
       {"{}", R"({"a":1,"b":[true,null,-2,3.5e2,"x\u00e9\n"],"c":{"d":[[],{}]}})",
        R"({"big":18446744073709551615,"small":-9223372036854775808,"z":1,"a":2})"})
    EXPECT_EQ(parse_body(text, kLimits), Json::parse(text)) << text;
  EXPECT_EQ(parse_body(R"({"z":1,"a":2})", kLimits).begin().key(), "z") << "order is kept";
}

TEST(JsonBody, RefusesWhatIsNoJson) {
  for (const std::string& text : std::vector<std::string>{"",
                                                          " \n",
                                                          "{",
                                                          "[",
                                                          "{\"a\":}",
                                                          "{\"a\":1,}",
                                                          "{'a':1}",
                                                          "{\"a\":1} x",
                                                          "{\"a\":01}",
                                                          "{\"a\":NaN}",
                                                          "{\"a\":+1}",
                                                          "{\"a\":\"\xFF\"}",
                                                          "{\"a\":\"\xED\xA0\x80\"}",
                                                          "{\"a\":\"\\ud800\"}",
                                                          "{\"a\":\"\\u12\"}",
                                                          std::string("{\"a\":\"\0\"}", 9),
                                                          "\xEF\xBB",
                                                          "{\"a\":\"b\n\"}",
                                                          "{\"a\" 1}",
                                                          "nul"})
    EXPECT_NE(refusal(text), "") << text;
  for (const char* text : {"[1]", "1", "\"a\"", "null"})
    EXPECT_NE(refusal(text).find("object"), std::string::npos) << text;
  EXPECT_NE(refusal("{\"a\":1e400}").find("too large"), std::string::npos);
  EXPECT_NE(refusal("{\"a\":" + std::string(1000, '9') + "}"), "");
  EXPECT_NE(refusal(R"({"a":1,"a":2})").find("twice"), std::string::npos);
}

TEST(JsonBody, TheBodyIsNotRepeated) {
  EXPECT_EQ(refusal("{\"secret words\": oops}").find("oops"), std::string::npos);
}

TEST(JsonBody, DepthAndKeys) {
  const auto nested = [](int n) {
    return "{\"a\":" + std::string(static_cast<std::size_t>(n - 1), '[') +
           std::string(static_cast<std::size_t>(n - 1), ']') + "}";
  };
  EXPECT_EQ(refusal(nested(64)), "");
  EXPECT_NE(refusal(nested(65)).find("64 levels"), std::string::npos);
  EXPECT_NE(refusal("{\"a\":" + std::string(500000, '[')), "");
  EXPECT_NE(refusal("{\"a\":" +
                    [] {
                      std::string s;
                      for (int i = 0; i < 100000; ++i) s += "{\"a\":";
                      return s;
                    }()),
            "");
  std::string keys = "{";
  for (int i = 0; i < 1024; ++i) keys += "\"" + std::to_string(i) + "\":0,";
  EXPECT_EQ(refusal(keys.substr(0, keys.size() - 1) + "}"), "");
  EXPECT_NE(refusal(keys + "\"x\":0}").find("keys"), std::string::npos);
}

class FieldsTest : public testing::Test {
 protected:
  // The message of what `read` throws over this object, "" if nothing.
  template <class Read>
  std::string error(const char* text, Read read) {
    const Json object = Json::parse(text);
    try {
      Fields fields(object, "at.");
      read(fields);
      UnknownFields unknown{true};
      fields.finish(unknown);
      return "";
    } catch (const ApiError& e) {
      EXPECT_EQ(e.status, 400);
      EXPECT_TRUE(e.param.starts_with("at")) << e.param;
      return e.message;
    }
  }
};

TEST_F(FieldsTest, ValuesAndAbsence) {
  const Json object = Json::parse(R"({"r":1.5,"i":7,"b":true,"t":"x","n":null,"o":{},"a":[1,2]})");
  Fields fields(object, "");
  EXPECT_EQ(fields.real("r", 0, 2), 1.5);
  EXPECT_EQ(fields.real("i", 0, 9), 7.0);
  EXPECT_EQ(fields.integer("i", 0, 9), 7);
  EXPECT_EQ(fields.boolean("b"), true);
  EXPECT_EQ(fields.text("t"), "x");
  EXPECT_EQ(fields.choice("t", {"w", "x"}), "x");
  EXPECT_FALSE(fields.integer("n", 0, 9));
  EXPECT_FALSE(fields.real("absent", 0, 9));
  EXPECT_NE(fields.object("o"), nullptr);
  EXPECT_EQ(fields.array("a", 1, 2)->size(), 2u);
  UnknownFields unknown{true};
  EXPECT_NO_THROW(fields.finish(unknown));
}

TEST_F(FieldsTest, WrongTypesNameTheField) {
  const auto real = [&](const char* text) {
    return error(text, [](Fields& f) { f.real("x", 0, 2); });
  };
  for (const char* text : {R"({"x":"1"})", R"({"x":true})", R"({"x":2.5})", R"({"x":-1e-9})",
                           R"({"x":[1]})", R"({"x":{}})"})
    EXPECT_NE(real(text).find("at.x"), std::string::npos) << text;
  const auto integer = [&](const char* text) {
    return error(text, [](Fields& f) { f.integer("x", -3, 3); });
  };
  for (const char* text : {R"({"x":4.0})", R"({"x":2.5})", R"({"x":4})", R"({"x":-4})",
                           R"({"x":"2"})", R"({"x":18446744073709551615})", R"({"x":1e18})"})
    EXPECT_NE(integer(text).find("expected an integer in -3..3"), std::string::npos) << text;
  for (const char* text : {R"({"x":-3})", R"({"x":2.0})", R"({"x":3e0})"})
    EXPECT_EQ(integer(text), "") << text;
  EXPECT_NE(error(R"({"x":1})", [](Fields& f) { f.boolean("x"); }), "");
  EXPECT_NE(error(R"({"x":1})", [](Fields& f) { f.text("x"); }), "");
  EXPECT_NE(error(R"({"x":"c"})", [](Fields& f) { f.choice("x", {"a", "b"}); }), "");
  EXPECT_NE(error(R"({"x":[]})", [](Fields& f) { f.array("x", 1, 4); }), "");
  EXPECT_NE(error(R"({"x":[]})", [](Fields& f) { f.object("x"); }), "");
  EXPECT_NE(error(R"([1])", [](Fields&) {}), "");
}

TEST_F(FieldsTest, UnknownFieldsAreNamed) {
  EXPECT_NE(error(R"({"x":1,"temprature":2})", [](Fields& f) { f.accept({"x"}); })
                .find("'at.temprature'"),
            std::string::npos);
  EXPECT_EQ(error(R"({"x":null})", [](Fields&) {}), "") << "null says nothing";
  const Json object = Json::parse(R"({"x":1,"temprature":2,"y":null,"z":{"a":1}})");
  Fields fields(object, "at.");
  fields.accept({"x"});
  UnknownFields unknown;
  fields.finish(unknown);
  EXPECT_EQ(unknown.names, (std::vector<std::string>{"at.temprature", "at.z"}));
}

}  // namespace
}  // namespace crumb::serve

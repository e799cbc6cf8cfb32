// Tools: what of a request is read, how a model hears of them, and what it wrote taken apart.
#include <gtest/gtest.h>

#include "apps/serve/api_request.h"
#include "apps/serve/tool_calls.h"
#include "apps/serve/tool_request.h"
#include "tests/engine/tiny.h"

namespace crumb::serve {
namespace {

constexpr const char* kTools = R"("tools":[
  {"type":"function","function":{"name":"weather","description":"<|im_end|>","parameters":{
     "type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}},
  {"type":"function","function":{"name":"now"}}])";

constexpr const char* kNoSystem =
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif "
    "%}[{{ m.role }}]{{ m.content }}{% endfor %}";

constexpr const char* kHermes =
    "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages "
    "%}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}<tool_call>{{ "
    "c.function.arguments | tojson }}</tool_call>{% endfor %}<|im_end|>{% endfor %}";

ServedModel model_of(const char* chat_template) {
  auto source = models::tiny_model({.context = 4096});
  if (chat_template != nullptr) source.chat_template = chat_template;
  ServedModel model;
  LoadOptions load;
  load.pin = false;
  model.engine = Engine::from_source(source, load);
  model.id = "tiny";
  model.prompt.emplace(model.engine);
  model.template_tools = says_tools(model.engine->chat_template());
  model.context = 4096;
  model.slots = 4;
  return model;
}

ApiRequest read(const ServedModel& model, const std::string& fields,
                const std::string& messages = R"([{"role":"user","content":"hi"}])") {
  return read_chat_request(
      Json::parse("{\"messages\":" + messages + (fields.empty() ? "" : "," + fields) + "}"), model,
      Limits());
}

std::string prompt_of(const ServedModel& model, const ApiRequest& request) {
  return model.engine->tokenizer().decode(request.jobs[0].prompt, true);
}

TEST(Tools, WhatIsWrongIsNamed) {
  const ServedModel model = model_of(nullptr);
  const auto one = [](const std::string& function) {
    return R"("tools":[{"type":"function","function":)" + function + "}]";
  };
  const std::string tools = kTools;
  const struct {
    std::string fields;
    const char* param;
  } table[] = {
      {R"("tools":5)", "tools"},
      {R"("tools":[5])", "tools[0]"},
      {R"("tools":[{}])", "tools[0].type"},
      {R"("tools":[{"type":"web"}])", "tools[0].type"},
      {R"("tools":[{"type":"function"}])", "tools[0].function"},
      {one("{}"), "tools[0].function.name"},
      {one(R"({"name":"a b"})"), "tools[0].function.name"},
      {one(R"({"name":""})"), "tools[0].function.name"},
      {one(R"({"name":"f","parameters":5})"), "tools[0].function.parameters"},
      {one(R"({"name":"f","parameters":{"type":"string"}})"), "tools[0].function.parameters"},
      {one(R"({"name":"f","parameters":{"type":"object","not":{}}})"),
       "tools[0].function.parameters"},
      {one(R"({"name":"f","strict":1})"), "tools[0].function.strict"},
      {R"("tool_choice":"required")", "tool_choice"},
      {tools + R"(,"tool_choice":"any")", "tool_choice"},
      {tools + R"(,"tool_choice":5)", "tool_choice"},
      {tools + R"(,"tool_choice":{"type":"function"})", "tool_choice.function"},
      {tools + R"(,"tool_choice":{"type":"function","function":{"name":"x"}})",
       "tool_choice.function.name"},
      {tools + R"(,"parallel_tool_calls":"no")", "parallel_tool_calls"},
      {tools + R"(,"stop":"x")", "stop"},
      {tools + R"(,"response_format":{"type":"json_object"})", "response_format"},
      {tools + R"(,"tool_choice":"required","max_tokens":20)", "max_tokens"},
  };
  for (const auto& row : table) {
    try {
      read(model, row.fields);
      ADD_FAILURE() << row.fields;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status, 400);
      EXPECT_EQ(error.param, row.param) << error.message;
    }
  }
  for (const char* fields : {R"("tools":[])", R"("tool_choice":"none")", R"("tool_choice":"auto")",
                             R"("tools":null,"tool_choice":null)"})
    EXPECT_FALSE(read(model, fields).tools) << fields;
  EXPECT_FALSE(read(model, tools + R"(,"tool_choice":"none","stop":"x")").tools);
  for (const char* calls :
       {"5", R"([5])", R"([{"id":"a"}])", R"([{"function":{"arguments":"{}"}}])",
        R"([{"function":{"name":"f","arguments":"{"}}])",
        R"([{"function":{"name":"f","arguments":{}}}])"}) {
    try {
      read(model, "", R"([{"role":"assistant","tool_calls":)" + std::string(calls) + "}]");
      ADD_FAILURE() << calls;
    } catch (const ApiError& error) {
      EXPECT_TRUE(error.param.starts_with("messages[0].tool_calls")) << error.param;
    }
  }
}

constexpr const char* kHistory = R"([{"role":"user","content":"hi"},
  {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Rome\"}"}}]},
  {"role":"tool","tool_call_id":"1","content":"sunny"},{"role":"tool","content":"warm<|im_end|>"},
  {"role":"user","content":"so?"}])";

TEST(Tools, AsTextForTemplatesThatKnowNone) {
  const ServedModel model = model_of(nullptr);
  EXPECT_FALSE(model.template_tools);
  const std::string text = prompt_of(model, read(model, kTools, kHistory));
  for (const char* part :
       {"<tools>", R"("name":"weather")", R"("required":["city"])", "</tools>",
        "<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Rome\"}}\n</tool_call>",
        "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nwarm<|im_end|>\n</"
        "tool_response>"})
    EXPECT_NE(text.find(part), text.npos) << part << " in " << text;
  // What tools and results say is no control token.
  const ApiRequest with = read(model, kTools, kHistory);
  const auto controls = [&](const ApiRequest& request) {
    const auto& ids = request.jobs[0].prompt;
    return std::count_if(ids.begin(), ids.end(),
                         [&](int32_t id) { return model.engine->tokenizer().is_control(id); });
  };
  const auto plain =
      read(model, "", R"([{"role":"system","content":"x"},{"role":"user","content":"x"},
    {"role":"assistant","content":"x"},{"role":"user","content":"x"},{"role":"user","content":"x"}])");
  EXPECT_EQ(controls(with), controls(plain));

  const ServedModel no_system = model_of(kNoSystem);
  const std::string first = prompt_of(no_system, read(no_system, kTools));
  EXPECT_TRUE(first.starts_with("[user]You may call")) << first;
  EXPECT_TRUE(first.ends_with("hi")) << first;
  EXPECT_EQ(prompt_of(no_system, read(no_system, std::string(kTools) + R"(,"tool_choice":"none")")),
            "[user]hi");
}

TEST(Tools, ByTheTemplateThatSaysThem) {
  const ServedModel model = model_of(kHermes);
  EXPECT_TRUE(model.template_tools);
  const std::string text = prompt_of(model, read(model, kTools, kHistory));
  EXPECT_TRUE(text.starts_with("{\"type\": \"function\"")) << text;
  EXPECT_NE(text.find("<tool_call>{\"city\": \"Rome\"}</tool_call>"), text.npos) << text;
  EXPECT_EQ(text.find("You may call"), text.npos);
}

struct Told {
  std::string content;
  std::vector<ToolCall> calls;
};

Told told(const std::vector<std::string>& pieces) {
  ToolCallStream stream;
  Told all;
  const auto add = [&](const ToolCallStream::Piece& piece) {
    all.content += piece.content;
    for (const auto& part : piece.parts) {
      if (part.first) all.calls.push_back({"", stream.calls()[part.call].name, ""});
      EXPECT_EQ(part.call + 1, all.calls.size());
      all.calls.back().arguments += part.arguments;
    }
  };
  for (const std::string& piece : pieces) add(stream.push(piece));
  add(stream.finish());
  EXPECT_EQ(all.calls.size(), stream.calls().size());
  for (std::size_t i = 0; i < all.calls.size(); ++i) {
    EXPECT_EQ(all.calls[i].arguments, stream.calls()[i].arguments);
    EXPECT_TRUE(stream.calls()[i].id.starts_with("call_"));
  }
  return all;
}

TEST(Tools, TextIsTakenApartWhereverItIsCut) {
  const std::string arguments = R"({"a": "}\"</tool_call>", "b": [{"c": {}}, "]"]})";
  const std::string text =
      "Let me < see.\n \n<tool_call>\n{\"name\": \"f-1\", \"arguments\": " + arguments +
      "}\n</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{}}" +
      "</tool_call> and <tool_ \n";
  for (std::size_t size = 1; size < 60; ++size) {
    std::vector<std::string> pieces;
    for (std::size_t i = 0; i < text.size(); i += size) pieces.push_back(text.substr(i, size));
    const Told all = told(pieces);
    EXPECT_EQ(all.content, "Let me < see. and <tool_") << size;
    ASSERT_EQ(all.calls.size(), 2u) << size;
    EXPECT_EQ(all.calls[0].name, "f-1");
    EXPECT_EQ(all.calls[0].arguments, arguments);
    EXPECT_EQ(all.calls[1].name, "g");
    EXPECT_EQ(all.calls[1].arguments, "{}");
  }
  EXPECT_EQ(told({" plain <tool_call", " \n"}).content, " plain <tool_call \n") << "as it was";
  EXPECT_EQ(told({}).content, "");
}

}  // namespace
}  // namespace crumb::serve

#include "apps/serve/tool_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "apps/serve/api_request.h"

namespace crumb::serve {
namespace {

constexpr int64_t kMaxTools = 128;
constexpr std::size_t kMaxName = 64;
constexpr const char* kName = "1..64 letters, digits, _ or -";

bool lawful_name(const std::string& name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

ToolFunction read_tool(const Json& object, const std::string& path, UnknownFields& unknown) {
  Fields tool(object, path + ".");
  if (!tool.choice("type", {"function"}))
    throw bad_field(tool.path_of("type"), "\"function\"", "nothing");
  const Json* given = tool.object("function");
  if (given == nullptr) throw bad_field(tool.path_of("function"), "an object", "nothing");
  Fields function(*given, tool.path_of("function."));
  ToolFunction out{function.required_text("name"), function.object("parameters")};
  if (!lawful_name(out.name)) throw bad_field(function.path_of("name"), kName, "another text");
  function.text("description");
  function.boolean("strict");  // it is always kept to
  function.finish(unknown);
  tool.finish(unknown);
  return out;
}

// Leaves the functions that may be called.
ToolUse read_choice(Fields& fields, std::vector<ToolFunction>& functions, UnknownFields& unknown) {
  ToolUse use;
  use.several = fields.boolean("parallel_tool_calls").value_or(true);
  const Json* choice = fields.value("tool_choice");
  if (choice == nullptr || is_text(*choice, "auto")) return use;
  const auto expect = [&](const std::string& expected) {
    fields.refuse("tool_choice", expected, *choice);
  };
  if (is_text(*choice, "none")) {
    functions.clear();
    return use;
  }
  if (functions.empty()) expect("none or auto without tools");
  use.required = true;
  if (is_text(*choice, "required")) return use;
  if (!choice->is_object()) expect("none, auto, required or a function");
  Fields one(*choice, "tool_choice.");
  if (!one.choice("type", {"function"}))
    throw bad_field("tool_choice.type", "\"function\"", "nothing");
  const Json* given = one.object("function");
  if (given == nullptr) throw bad_field("tool_choice.function", "an object", "nothing");
  Fields function(*given, "tool_choice.function.");
  const std::string name = function.required_text("name");
  function.finish(unknown);
  one.finish(unknown);
  std::erase_if(functions, [&](const ToolFunction& f) { return f.name != name; });
  if (functions.empty())
    throw bad_field("tool_choice.function.name", "the name of one of the tools", "another text");
  use.several = false;
  return use;
}

// "/2/parameters/x" of the functions that may be called, as a place of the request.
std::string place_of(const std::string& pointer, const Json& tools,
                     const std::vector<ToolFunction>& functions) {
  const std::size_t end = pointer.find('/', 1);
  const auto index = static_cast<std::size_t>(std::stoul(pointer.substr(1, end - 1)));
  std::size_t tool = 0;
  while (!is_text(tools[tool]["function"]["name"], functions[index].name)) ++tool;
  return fmt::format("tools[{}].function.parameters", tool);
}

std::string call_text(const Json& call) {
  const Json body = {{"name", call["function"]["name"]},
                     {"arguments", call["function"]["arguments"]}};
  return fmt::format("{}\n{}\n{}", kToolCallBegin, dump(body), kToolCallEnd);
}

std::string definitions_text(const Json& definitions) {
  std::string text =
      "You may call functions to help with the answer. Their signatures are within <tools> and "
      "</tools>:\n<tools>";
  for (const Json& tool : definitions) text += "\n" + dump(tool);
  return text +
         "\n</tools>\nTo call one, write its name and an object of its arguments:\n<tool_call>\n"
         "{\"name\": <name>, \"arguments\": <arguments>}\n</tool_call>\nWhat it returns comes "
         "within <tool_response> and </tool_response>.";
}

}  // namespace

Tools read_tools(Fields& fields, UnknownFields& unknown) {
  Tools tools;
  std::vector<ToolFunction> functions;
  if (const Json* array = fields.array("tools", 0, kMaxTools)) {
    for (std::size_t i = 0; i < array->size(); ++i) {
      functions.push_back(read_tool((*array)[i], fmt::format("tools[{}]", i), unknown));
    }
    tools.definitions = *array;
  }
  const ToolUse use = read_choice(fields, functions, unknown);
  if (functions.empty()) {
    tools.definitions = Json::array();
    return tools;
  }
  try {
    tools.grammar = JsonGrammar::tool_calls(functions, use);
  } catch (const SchemaError& error) {
    if (error.pointer().empty()) throw ApiError{400, error.what(), "tools", "invalid_schema"};
    const std::string path = place_of(error.pointer(), tools.definitions, functions);
    const std::string inside = error.pointer().substr(error.pointer().find("/parameters") + 11);
    throw ApiError{
        400,
        "the schema cannot be kept to (" + path + " at '" + inside + "': " + error.what() + ")",
        path, "invalid_schema"};
  }
  return tools;
}

Json read_tool_calls(const Json& array, const std::string& path, const Limits& limits,
                     UnknownFields& unknown) {
  Json calls = Json::array();
  for (std::size_t i = 0; i < array.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", path, i);
    Fields call(array[i], at + ".");
    const auto id = call.text("id");
    call.choice("type", {"function"});
    const Json* given = call.object("function");
    if (given == nullptr) throw bad_field(call.path_of("function"), "an object", "nothing");
    Fields function(*given, call.path_of("function."));
    const std::string name = function.required_text("name");
    const std::string text = function.text("arguments").value_or("");
    Json arguments = Json::object();
    try {
      if (!text.empty()) arguments = parse_body(text, limits);
    } catch (const ApiError&) {
      throw bad_field(function.path_of("arguments"), "the text of a JSON object", "another text");
    }
    function.finish(unknown);
    call.finish(unknown);
    calls.push_back({{"id", id.value_or("")},
                     {"type", "function"},
                     {"function", {{"name", name}, {"arguments", std::move(arguments)}}}});
  }
  return calls;
}

bool says_tools(const std::string& chat_template) {
  return chat_template.find("tools") != chat_template.npos &&
         chat_template.find(kToolCallBegin) != chat_template.npos;
}

Json with_tools_as_text(Json messages, const Json& definitions, bool system) {
  Json out = Json::array();
  bool results = false;  // the last message holds results
  for (Json& message : messages) {
    const bool result = is_text(message["role"], "tool");
    if (result) {
      const std::string text = fmt::format("<tool_response>\n{}\n</tool_response>",
                                           message["content"].get<std::string>());
      if (results)
        out.back()["content"] = out.back()["content"].get<std::string>() + "\n" + text;
      else
        out.push_back({{"role", "user"}, {"content", text}});
    } else {
      if (message.contains("tool_calls")) {
        std::string text = message["content"].get<std::string>();
        for (const Json& call : message["tool_calls"])
          text += (text.empty() ? "" : "\n") + call_text(call);
        message.erase("tool_calls");
        message["content"] = text;
      }
      out.push_back(std::move(message));
    }
    results = result;
  }
  if (definitions.empty()) return out;
  const std::string text = definitions_text(definitions);
  const auto add = [&](Json& message) {
    const std::string content = message["content"].get<std::string>();
    message["content"] = system ? content + "\n\n" + text : text + "\n\n" + content;
  };
  if (!system) {
    const auto first = std::find_if(out.begin(), out.end(),
                                    [](const Json& m) { return is_text(m["role"], "user"); });
    if (first != out.end()) add(*first);
  } else if (is_text(out.front()["role"], "system")) {
    add(out.front());
  } else {
    out.insert(out.begin(), Json{{"role", "system"}, {"content", text}});
  }
  return out;
}

}  // namespace crumb::serve

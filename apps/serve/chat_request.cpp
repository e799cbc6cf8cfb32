#include <fmt/format.h>

#include "apps/serve/api_request.h"
#include "models/errors.h"

namespace crumb::serve {
namespace {

const std::vector<std::string> kRoles = {"developer", "system", "user", "assistant", "tool"};

// The text of a message: a string, or parts of type text joined.
std::string read_content(Fields& message, bool may_be_absent) {
  const Json* content = message.value("content");
  if (content == nullptr) {
    if (may_be_absent) return {};
    throw bad_field(message.path_of("content"), "a string or an array of parts", "nothing");
  }
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) message.refuse("content", "a string or an array of parts", *content);
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    const std::string path = fmt::format("{}[{}]", message.path_of("content"), i);
    Fields part((*content)[i], path + ".");
    const std::string type = part.required_text("type");
    if (type != "text")
      throw ApiError{400, "this model reads text only (" + path + ")", path, "unsupported_content"};
    text += part.required_text("text");
    part.finish();
  }
  return text;
}

Json read_message(const Json& object, const std::string& path) {
  Fields message(object, path + ".");
  const auto role = message.choice("role", kRoles);
  if (!role)
    throw bad_field(path + ".role", fmt::format("one of {}", fmt::join(kRoles, ", ")), "nothing");
  // Templates know no developers; they are who speaks for the system.
  Json out = {{"role", *role == "developer" ? "system" : *role}};
  const Json* calls = *role == "assistant" ? message.array("tool_calls", 0, 128) : nullptr;
  out["content"] = read_content(message, calls != nullptr);
  if (const auto name = message.text("name")) out["name"] = *name;
  if (calls != nullptr && !calls->empty()) out["tool_calls"] = *calls;
  if (*role == "tool") {
    if (const auto id = message.text("tool_call_id")) out["tool_call_id"] = *id;
  }
  message.accept({"refusal", "annotations", "audio"});
  message.finish();
  return out;
}

void refuse_unsupported(Fields& fields) {
  if (const Json* tools = fields.value("tools"); tools != nullptr && *tools != Json::array())
    throw ApiError{400, "tools are not supported (tools: expected none)", "tools",
                   "unsupported_value"};
  if (const Json* choice = fields.value("tool_choice");
      choice != nullptr && *choice != "none" && *choice != "auto")
    throw ApiError{400, "tools are not supported (tool_choice: expected none or auto)",
                   "tool_choice", "unsupported_value"};
  if (const Json* modalities = fields.array("modalities", 1, 4))
    for (const Json& one : *modalities)
      if (one != "text") fields.refuse("modalities", "[\"text\"]", *modalities);
}

}  // namespace

Json read_messages(const Json& array) {
  Json messages = Json::array();
  for (std::size_t i = 0; i < array.size(); ++i)
    messages.push_back(read_message(array[i], fmt::format("messages[{}]", i)));
  return messages;
}

ApiRequest read_chat_request(const Json& body, const ServedModel& model, const Limits& limits) {
  Fields fields(body, "");
  ApiRequest request;
  read_model_name(fields, model);
  const Json* messages = fields.array("messages", 1, limits.messages);
  if (messages == nullptr)
    throw bad_field("messages", fmt::format("an array of 1..{}", limits.messages), "nothing");
  Json variables = {{"messages", read_messages(*messages)}};
  Job job = read_generation(fields, model, limits);
  const auto most = fields.integer("max_completion_tokens", 1, INT32_MAX);
  const auto old_most = fields.integer("max_tokens", 1, INT32_MAX);
  job.max_tokens = most ? *most : old_most.value_or(-1);
  request.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, 20);
  if (top && !request.logprobs)
    fields.refuse("top_logprobs", "nothing without \"logprobs\": true", Json(*top));
  if (request.logprobs) job.top_logprobs = static_cast<int>(top.value_or(0));
  variables["add_generation_prompt"] = fields.boolean("add_generation_prompt").value_or(true);
  if (const Json* more = fields.object("chat_template_kwargs"))
    for (const auto& [name, value] : more->items())
      if (!variables.contains(name)) variables[name] = value;
  if (const auto effort = fields.text("reasoning_effort")) variables["reasoning_effort"] = *effort;
  read_format(fields, job);
  refuse_unsupported(fields);
  fields.accept({"parallel_tool_calls"});
  read_delivery(fields, request, model);
  fields.finish();

  if (!model.prompt) throw ApiError{400, model.prompt_error, "messages", "no_chat_template"};
  std::vector<Prompt> prompts(1);
  try {
    prompts[0].ids = model.engine->tokenizer().encode(model.prompt->render(std::move(variables)));
  } catch (const Error& error) {
    throw ApiError{400, error.what(), "messages", "chat_template"};
  }
  if (prompts[0].ids.empty()) throw bad_field("messages", "at least one token", "none");
  make_jobs(request, job, std::move(prompts), "messages", model);
  return request;
}

}  // namespace crumb::serve

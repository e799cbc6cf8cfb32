#include <fmt/format.h>

#include "apps/serve/api_request.h"
#include "apps/serve/tool_request.h"
#include "models/errors.h"

namespace crumb::serve {
namespace {

const std::vector<std::string> kRoles = {"developer", "system", "user", "assistant", "tool"};

// The text of a message: a string, or parts of type text joined.
std::string read_content(Fields& message, bool may_be_absent, UnknownFields& unknown) {
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
    part.finish(unknown);
  }
  return text;
}

Json read_message(const Json& object, const std::string& path, const Limits& limits,
                  UnknownFields& unknown) {
  Fields message(object, path + ".");
  const auto role = message.choice("role", kRoles);
  if (!role)
    throw bad_field(path + ".role", fmt::format("one of {}", fmt::join(kRoles, ", ")), "nothing");
  // Templates know no developers; they are who speaks for the system.
  Json out = {{"role", *role == "developer" ? "system" : *role}};
  const Json* calls = *role == "assistant" ? message.array("tool_calls", 0, 128) : nullptr;
  out["content"] = read_content(message, calls != nullptr, unknown);
  if (const auto name = message.text("name")) out["name"] = *name;
  if (calls != nullptr && !calls->empty())
    out["tool_calls"] = read_tool_calls(*calls, message.path_of("tool_calls"), limits, unknown);
  if (*role == "tool") {
    if (const auto id = message.text("tool_call_id")) out["tool_call_id"] = *id;
  }
  message.accept({"refusal", "annotations", "audio"});
  message.finish(unknown);
  return out;
}

void refuse_modalities(Fields& fields) {
  if (const Json* modalities = fields.array("modalities", 1, 4))
    for (const Json& one : *modalities)
      if (!is_text(one, "text")) fields.refuse("modalities", "[\"text\"]", *modalities);
}

// The answer may hold calls: it is held to their form.
void use_tools(const Tools& tools, Job& job, ApiRequest& request) {
  if (!tools.grammar) return;
  if (job.grammar)
    throw bad_field("response_format", "nothing with tools that may be called", "a format");
  if (!job.stop.empty())
    throw bad_field("stop", "nothing with tools: it would cut a call", "stop texts");
  job.grammar = tools.grammar;
  request.tools = true;
}

std::vector<tokenizer::Segment> render(const ServedModel& model, Json variables,
                                       const Tools& tools) {
  if (model.template_tools) {
    if (!tools.definitions.empty()) variables["tools"] = tools.definitions;
    return model.prompt->render(std::move(variables));
  }
  const Json messages = std::move(variables["messages"]);
  variables["messages"] = with_tools_as_text(messages, tools.definitions, true);
  if (tools.definitions.empty() || is_text(messages.front()["role"], "system"))
    return model.prompt->render(std::move(variables));
  try {
    return model.prompt->render(variables);
  } catch (const Error&) {  // the template may have no place for a system
    variables["messages"] = with_tools_as_text(messages, tools.definitions, false);
    return model.prompt->render(std::move(variables));
  }
}

// Where a conversation may begin: behind what the system says, with a user.
std::vector<std::size_t> beginnings(const Json& messages) {
  std::size_t system = 0;
  while (system < messages.size() && is_text(messages[system]["role"], "system")) ++system;
  std::vector<std::size_t> all = {system};
  for (std::size_t i = system + 1; i < messages.size(); ++i)
    if (is_text(messages[i]["role"], "user")) all.push_back(i);
  return all;
}

// The prompt's tokens. Where the oldest may be left out and there is too little room, as few
// messages are as it takes; if the last question alone is too long, nothing is.
std::vector<int32_t> encode_chat(const ServedModel& model, const Json& variables,
                                 const Tools& tools, int64_t room, int64_t& truncated) {
  const Json& messages = variables["messages"];
  const std::vector<std::size_t> begins = beginnings(messages);
  const auto from = [&](std::size_t begin) {
    Json some = variables;
    auto& kept = some["messages"].get_ref<Json::array_t&>();
    kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(begins.front()),
               kept.begin() + static_cast<std::ptrdiff_t>(begin));
    return model.engine->tokenizer().encode(render(model, std::move(some), tools));
  };
  std::vector<int32_t> all = from(begins.front());
  if (!model.drops_oldest || std::ssize(all) <= room) return all;
  std::size_t low = 0, high = begins.size() - 1;  // begins[low] is too early
  std::vector<int32_t> best = from(begins[high]);
  if (std::ssize(best) > room) return all;
  while (high - low > 1) {
    const std::size_t middle = (low + high) / 2;
    std::vector<int32_t> ids = from(begins[middle]);
    if (std::ssize(ids) > room) {
      low = middle;
    } else {
      high = middle;
      best = std::move(ids);
    }
  }
  truncated = std::ssize(all) - std::ssize(best);
  return best;
}

}  // namespace

Json read_messages(const Json& array, const Limits& limits, UnknownFields& unknown) {
  Json messages = Json::array();
  for (std::size_t i = 0; i < array.size(); ++i)
    messages.push_back(read_message(array[i], fmt::format("messages[{}]", i), limits, unknown));
  return messages;
}

ApiRequest read_chat_request(const Json& body, const ServedModel& model, const Limits& limits) {
  Fields fields(body, "");
  UnknownFields unknown{model.strict_fields};
  ApiRequest request;
  request.other_model = read_model_name(fields, model);
  const Json* messages = fields.array("messages", 1, limits.messages);
  if (messages == nullptr)
    throw bad_field("messages", fmt::format("an array of 1..{}", limits.messages), "nothing");
  Json variables = {{"messages", read_messages(*messages, limits, unknown)}};
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
  read_format(fields, job, unknown);
  const Tools tools = read_tools(fields, unknown);
  use_tools(tools, job, request);
  refuse_modalities(fields);
  read_delivery(fields, request, model, unknown);
  finish_request(fields, unknown, request.ignored);

  if (!model.prompt) throw ApiError{400, model.prompt_error, "messages", "no_chat_template"};
  std::vector<Prompt> prompts(1);
  try {
    prompts[0].ids =
        encode_chat(model, variables, tools, prompt_room(job.max_tokens, model), request.truncated);
  } catch (const Error& error) {
    throw ApiError{400, error.what(), "messages", "chat_template"};
  }
  if (prompts[0].ids.empty()) throw bad_field("messages", "at least one token", "none");
  make_jobs(request, job, std::move(prompts), "messages", model);
  return request;
}

}  // namespace crumb::serve

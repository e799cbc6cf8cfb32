// Choices as /v1/chat/completions and /v1/completions write them.
#include <algorithm>

#include "apps/serve/reply.h"

namespace crumb::serve {
namespace {

Json reason_or_null(const char* reason) { return *reason == '\0' ? Json(nullptr) : Json(reason); }

// ---- chat

Json bytes_of(const Engine& engine, int32_t id) {
  Json bytes = Json::array();
  for (const char c : engine.tokenizer().bytes(id)) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

Json chat_no_logprobs() { return {{"content", Json::array()}, {"refusal", nullptr}}; }

void chat_add_logprob(Choice& choice, const Engine& engine, const TokenLogprob& token, bool) {
  const auto entry = [&](int32_t id, float logprob) -> Json {
    return {
        {"token", token_text(engine, id)}, {"logprob", logprob}, {"bytes", bytes_of(engine, id)}};
  };
  Json one = entry(token.id, token.logprob);
  one["top_logprobs"] = Json::array();
  for (const auto& [id, logprob] : token.top) one["top_logprobs"].push_back(entry(id, logprob));
  choice.logprobs["content"].push_back(std::move(one));
}

Json chat_opening() {
  return {{"index", 0},
          {"delta", {{"role", "assistant"}, {"content", ""}}},
          {"logprobs", nullptr},
          {"finish_reason", nullptr}};
}

Json chat_chunk(int64_t index, const std::string& text, Json logprobs, const char* reason) {
  Json delta = Json::object();
  if (*reason == '\0') delta["content"] = text;
  return {{"index", index},
          {"delta", std::move(delta)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", reason_or_null(reason)}};
}

Json call_head(const ToolCall& call) {
  return {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}}}};
}

Json chat_calls(const Choice& choice, const std::vector<ToolCallStream::Part>& parts,
                Json logprobs) {
  Json deltas = Json::array();
  for (const ToolCallStream::Part& part : parts) {
    Json delta = {{"index", part.call}};
    if (part.first) delta.update(call_head(choice.tools.calls()[part.call]));
    delta["function"]["arguments"] = part.arguments;
    deltas.push_back(std::move(delta));
  }
  return {{"index", choice.index},
          {"delta", {{"tool_calls", std::move(deltas)}}},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", nullptr}};
}

Json chat_whole(const Choice& choice, Json logprobs, const char* reason) {
  Json message = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
  const std::vector<ToolCall>& calls = choice.tools.calls();
  if (!calls.empty()) {
    if (choice.text.empty()) message["content"] = nullptr;
    for (const ToolCall& call : calls) {
      Json one = call_head(call);
      one["function"]["arguments"] = call.arguments;
      message["tool_calls"].push_back(std::move(one));
    }
  }
  return {{"index", choice.index},
          {"message", std::move(message)},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", reason}};
}

// ---- completions

Json completion_no_logprobs() {
  return {{"tokens", Json::array()},
          {"token_logprobs", Json::array()},
          {"top_logprobs", Json::array()},
          {"text_offset", Json::array()}};
}

void completion_add_logprob(Choice& choice, const Engine& engine, const TokenLogprob& token,
                            bool known) {
  Json& all = choice.logprobs;
  all["tokens"].push_back(token_name(engine, token.id));
  all["text_offset"].push_back(choice.characters);
  for (const char c : engine.tokenizer().bytes(token.id))
    choice.characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  if (!known) {
    all["token_logprobs"].push_back(nullptr);
    all["top_logprobs"].push_back(nullptr);
    return;
  }
  all["token_logprobs"].push_back(token.logprob);
  // The likeliest, and the token itself. Tokens of one name share an entry: the likelier stays.
  Json top = Json::object();
  const auto add = [&](int32_t id, float logprob) {
    const std::string name = token_name(engine, id);
    const auto found = top.find(name);
    if (found == top.end())
      top[name] = logprob;
    else if (found->get<float>() < logprob)
      *found = logprob;
  };
  for (const auto& [id, logprob] : token.top) add(id, logprob);
  add(token.id, token.logprob);
  all["top_logprobs"].push_back(std::move(top));
}

Json completion_chunk(int64_t index, const std::string& text, Json logprobs, const char* reason) {
  return {{"index", index},
          {"text", text},
          {"logprobs", std::move(logprobs)},
          {"finish_reason", reason_or_null(reason)}};
}

Json completion_whole(const Choice& choice, Json logprobs, const char* reason) {
  return completion_chunk(choice.index, choice.text, std::move(logprobs), reason);
}

}  // namespace

const Dialect kChatDialect = {"chatcmpl-",      "chat.completion", "chat.completion.chunk",
                              chat_no_logprobs, chat_add_logprob,  chat_opening,
                              chat_chunk,       chat_calls,        chat_whole};
const Dialect kCompletionDialect = {
    "cmpl-", "text_completion", "text_completion", completion_no_logprobs, completion_add_logprob,
    nullptr, completion_chunk,  nullptr,           completion_whole};

}  // namespace crumb::serve

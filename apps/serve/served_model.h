// The model as the endpoints see it.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/chat_prompt.h"
#include "engine/engine.h"

namespace crumb::serve {

struct ServedModel {
  std::shared_ptr<const Engine> engine;
  std::string id;              // no path: the file's stem, or an alias
  bool strict_id = false;      // other names in requests are refused
  bool strict_fields = false;  // unknown fields of requests are refused
  int64_t created = 0;         // Unix time
  std::string fingerprint;
  std::optional<ChatPrompt> prompt;  // none: there is no template, or it cannot be read
  std::string prompt_error;          // then why
  bool template_tools = false;       // the template says tools itself (tool_request.h)
  int64_t context = 0;               // tokens of one slot
  int slots = 0;
  // A prompt that leaves too little of the context loses its oldest part instead of being refused.
  bool drops_oldest = false;
};

// The text of a token for JSON: replaced where it is no UTF-8.
std::string token_text(const Engine& engine, int32_t id);
// As OpenAI's completions write it: "bytes:\xHH.." where it is no UTF-8.
std::string token_name(const Engine& engine, int32_t id);

}  // namespace crumb::serve

// Tools of a chat request: which there are, how the model hears of them. Included by .cpp only.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/serve/json_body.h"
#include "apps/serve/served_model.h"
#include "engine/json_grammar.h"

namespace crumb::serve {

struct Tools {
  Json definitions = Json::array();  // as they were given; empty: the model is told of none
  std::shared_ptr<const JsonGrammar> grammar;  // what the answer is held to; null: no calls
};

// tools, tool_choice, parallel_tool_calls. ApiError 400 names the field, and a function's schema
// that cannot be kept to.
Tools read_tools(Fields& fields, UnknownFields& unknown);

// tool_calls of an assistant's message, for the template: arguments are objects there.
Json read_tool_calls(const Json& array, const std::string& path, const Limits& limits,
                     UnknownFields& unknown);

// Whether the template itself says tools and calls in the form that we read (Hermes': Qwen's).
bool says_tools(const std::string& chat_template);

// For any other template: the definitions in the system's message, calls and their results as text
// of messages. `system` false: in the first message of a user instead, for templates that have no
// system.
Json with_tools_as_text(Json messages, const Json& definitions, bool system);

}  // namespace crumb::serve

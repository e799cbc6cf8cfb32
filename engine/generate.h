// Text from a session: prefill, decode, stop rules.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "engine/json_grammar.h"
#include "engine/sampler.h"

namespace crumb {

enum class FinishReason : uint8_t { kStop, kLength, kContext, kCancelled };

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = -1;        // -1: until a stop or the end of the context
  std::vector<std::string> stop;  // texts that end the answer (not part of it)
  bool ignore_eos = false;
  std::shared_ptr<const JsonGrammar> grammar;  // the answer is held to it; may be null
  std::span<const float> rows;  // [R, D] that ids of the prompt below 0 stand for (engine.h)
  // Called between pieces of a long prompt; returning false cancels.
  std::function<bool(int64_t done, int64_t total)> on_prefill;
};

struct GenerateResult {
  FinishReason reason = FinishReason::kStop;
  std::vector<int32_t> ids;  // generated, with the stop token if one ended it
  std::string text;
  int64_t prompt_tokens = 0, cached_tokens = 0;
  double prompt_seconds = 0, first_token_seconds = 0, decode_seconds = 0;
};

// Continues after `prompt` (appended to the session). `on_text` gets whole characters as they come,
// held back while they may be the start of a stop text; returning false cancels. A cancelled or
// finished session holds prompt and answer but for the last token sampled, so the conversation can
// go on. `before` are the tokens the session already holds, for the penalties. Throws as
// Session::forward does, and Error(kMemory) if an answer that is held to a grammar could not be
// complete within its tokens.
GenerateResult generate(Session& session, const Engine& engine, std::span<const int32_t> prompt,
                        const GenerateOptions& options,
                        const std::function<bool(std::string_view)>& on_text,
                        std::span<const int32_t> before = {});

}  // namespace crumb

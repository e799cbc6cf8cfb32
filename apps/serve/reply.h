// The events of a request to its answer: one JSON object, or a stream of chunks. Included by .cpp
// only.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apps/serve/api_request.h"
#include "apps/serve/http_types.h"
#include "apps/serve/json_body.h"
#include "apps/serve/scheduler.h"
#include "apps/serve/served_model.h"
#include "apps/serve/tool_calls.h"

namespace crumb::serve {

// What has come of one choice.
struct Choice {
  int64_t index = 0;
  std::string text;        // all that may be shown
  std::string unsent;      // of a stream: shown by the next chunk
  ToolCallStream tools;    // of a request with tools: takes the text apart
  Json logprobs;           // entries, of a stream those not sent; in the dialect's shape
  int64_t characters = 0;  // of the tokens in logprobs so far
  FinishReason reason = FinishReason::kStop;
  bool started = false, done = false;
  JobStats stats;
};

// How an endpoint writes choices.
struct Dialect {
  const char *id_prefix, *object, *chunk_object;
  Json (*no_logprobs)();
  // Adds a token's entry; `known` false: the first token of a prompt, which nothing predicted.
  void (*add_logprob)(Choice& choice, const Engine& engine, const TokenLogprob& token, bool known);
  Json (*opening)();  // what a stream's first chunk of a choice says, null: there is none
  // `logprobs` is null if they were not asked for; reason "" means not finished.
  Json (*chunk)(int64_t index, const std::string& text, Json logprobs, const char* reason);
  // Parts of calls, by a stream; null: there are none in this dialect.
  Json (*calls)(const Choice& choice, const std::vector<ToolCallStream::Part>& parts,
                Json logprobs);
  Json (*whole)(const Choice& choice, Json logprobs, const char* reason);
};
extern const Dialect kChatDialect, kCompletionDialect;

class Reply {
 public:
  // `request` without its jobs' prompts but for echo.
  Reply(const Dialect& dialect, std::shared_ptr<Exchange> exchange, const ServedModel& model,
        const ApiRequest& request, HttpFields fields);

  // On the scheduler's thread. False: the request has failed, nothing more is wanted.
  bool on_event(JobEvent event);

 private:
  void take(Choice& choice, const std::string& text, bool last);
  const char* reason_of(const Choice& choice) const;
  void on_token(Choice& choice, const JobEvent& event);
  void on_done(Choice& choice, const JobEvent& event);
  void fail(const ApiError& error);
  void send_pending(Choice& choice);
  void open(Choice& choice);
  void send_chunk(Json choices, const JobStats* stats);
  Json notes() const;
  void end();
  Json envelope(const char* object) const;
  Json usage() const;
  Json take_logprobs(Choice& choice) const;

  const Dialect& dialect_;
  std::shared_ptr<Exchange> exchange_;
  const ServedModel& model_;
  std::string id_;
  int64_t created_;
  bool stream_, include_usage_, logprobs_, timings_per_token_, tools_;
  int64_t choices_;
  std::vector<std::string> ignored_;
  int64_t truncated_;
  HttpFields fields_;  // further ones of the answer
  uint64_t seed_;
  std::vector<Choice> all_;
  std::size_t left_;
  bool started_ = false, failed_ = false;
};

Json timings_of(const JobStats& stats);
std::string error_event(const ApiError& error);

}  // namespace crumb::serve

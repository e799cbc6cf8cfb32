// Bodies of requests to what the scheduler is asked for. Every function throws ApiError 400 naming
// the field. Included by .cpp only.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "apps/serve/json_body.h"
#include "apps/serve/limits.h"
#include "apps/serve/scheduler.h"
#include "apps/serve/served_model.h"

namespace crumb::serve {

struct ApiRequest {
  std::vector<Job> jobs;             // of prompt p and choice j: jobs[p * choices + j]
  int64_t choices = 1;               // n
  std::vector<std::string> prompts;  // texts as given, for echo; "" for token ids
  bool stream = false, include_usage = false;
  bool echo = false;
  bool logprobs = false;
  bool timings_per_token = false;
  int64_t truncated = 0;             // tokens of the prompts that were left out
  bool tools = false;                // the answer may hold calls
  bool other_model = false;          // the request names a model that is not this one
  std::vector<std::string> ignored;  // fields given that have no effect here
};

// POST /v1/chat/completions
ApiRequest read_chat_request(const Json& body, const ServedModel& model, const Limits& limits);
// POST /v1/completions
ApiRequest read_completion_request(const Json& body, const ServedModel& model,
                                   const Limits& limits);

struct EmbeddingRequest {
  std::vector<Job> jobs;
  bool base64 = false;
  std::vector<std::string> ignored;
};
// POST /v1/embeddings
EmbeddingRequest read_embedding_request(const Json& body, const ServedModel& model,
                                        const Limits& limits);

// What these share, and /tokenize.
// Returns whether the request names another one.
bool read_model_name(Fields& fields, const ServedModel& model);
// A string, an array of strings, of ids, or of arrays of ids. `literal`: spellings of control
// tokens become these tokens.
struct Prompt {
  std::vector<int32_t> ids;
  std::string text;
};
std::vector<Prompt> read_prompts(Fields& fields, const char* name, const ServedModel& model,
                                 const Limits& limits, bool literal);
std::vector<int32_t> read_ids(const Json& array, const std::string& path, const ServedModel& model);
// Sampling, stops and lengths, the same for all jobs of a request.
Job read_generation(Fields& fields, const ServedModel& model, const Limits& limits);
// response_format: `job` gets the grammar, and must have no stops then.
void read_format(Fields& fields, Job& job, UnknownFields& unknown);
// n, stream, stream_options; what clients send that has no effect here.
void read_delivery(Fields& fields, ApiRequest& request, const ServedModel& model,
                   UnknownFields& unknown);
// The end of a request: what has no effect is noted.
void finish_request(const Fields& fields, UnknownFields& unknown,
                    std::vector<std::string>& ignored);
void require_context(const std::vector<int32_t>& ids, const char* param, const ServedModel& model);
// Tokens of a prompt that leave room for an answer: for max_tokens, for a quarter of the context if
// none are given, for half of it at most.
int64_t prompt_room(int64_t max_tokens, const ServedModel& model);
// One job for each prompt and choice; choice j's seed is j more.
void make_jobs(ApiRequest& request, const Job& job, std::vector<Prompt> prompts, const char* param,
               const ServedModel& model);
// The messages as the template sees them.
Json read_messages(const Json& array, const Limits& limits, UnknownFields& unknown);

}  // namespace crumb::serve

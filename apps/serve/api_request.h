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
};
// POST /v1/embeddings
EmbeddingRequest read_embedding_request(const Json& body, const ServedModel& model,
                                        const Limits& limits);

// What these share, and /tokenize.
void read_model_name(Fields& fields, const ServedModel& model);
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
void read_format(Fields& fields, Job& job);
// n, stream, stream_options; what clients send that has no effect here.
void read_delivery(Fields& fields, ApiRequest& request, const ServedModel& model);
void require_context(const std::vector<int32_t>& ids, const char* param, const ServedModel& model);
// One job for each prompt and choice; choice j's seed is j more.
void make_jobs(ApiRequest& request, const Job& job, std::vector<Prompt> prompts, const char* param,
               const ServedModel& model);
// The messages as the template sees them.
Json read_messages(const Json& array);

}  // namespace crumb::serve

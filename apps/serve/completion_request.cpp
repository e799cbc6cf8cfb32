#include <fmt/format.h>

#include "apps/serve/api_request.h"

namespace crumb::serve {

ApiRequest read_completion_request(const Json& body, const ServedModel& model,
                                   const Limits& limits) {
  Fields fields(body, "");
  UnknownFields unknown{model.strict_fields};
  ApiRequest request;
  request.other_model = read_model_name(fields, model);
  const bool literal = fields.boolean("parse_special").value_or(true);
  std::vector<Prompt> prompts = read_prompts(fields, "prompt", model, limits, literal);
  Job job = read_generation(fields, model, limits);
  job.max_tokens = fields.integer("max_tokens", 0, INT32_MAX).value_or(16);
  request.echo = fields.boolean("echo").value_or(false);
  if (const auto top = fields.integer("logprobs", 0, 20)) {
    request.logprobs = true;
    job.top_logprobs = static_cast<int>(*top);
    job.prompt_logprobs = request.echo;
  }
  if (const Json* suffix = fields.value("suffix"))
    fields.refuse("suffix", "nothing: text is not filled in", *suffix);
  fields.integer("best_of", 1, 1);
  read_format(fields, job, unknown);
  read_delivery(fields, request, model, unknown);
  finish_request(fields, unknown, request.ignored);
  if (std::ssize(prompts) * request.choices > limits.prompts)
    throw bad_field("n", fmt::format("at most {} texts in all", limits.prompts),
                    std::to_string(std::ssize(prompts) * request.choices));
  if (model.drops_oldest && !request.echo)
    for (Prompt& prompt : prompts) {
      const int64_t over = std::ssize(prompt.ids) - prompt_room(job.max_tokens, model);
      if (over <= 0) continue;
      prompt.ids.erase(prompt.ids.begin(), prompt.ids.begin() + over);
      request.truncated += over;
    }
  make_jobs(request, job, std::move(prompts), "prompt", model);
  return request;
}

EmbeddingRequest read_embedding_request(const Json& body, const ServedModel& model,
                                        const Limits& limits) {
  Fields fields(body, "");
  UnknownFields unknown{model.strict_fields};
  EmbeddingRequest request;
  read_model_name(fields, model);
  const auto format = fields.choice("encoding_format", {"float", "base64"});
  request.base64 = format == "base64";
  const int64_t dim = model.engine->config().dim;
  fields.integer("dimensions", dim, dim);
  fields.accept({"user"});
  for (Prompt& prompt : read_prompts(fields, "input", model, limits, false)) {
    require_context(prompt.ids, "input", model);
    Job job;
    job.embed = true;
    job.prompt_index = std::ssize(request.jobs);
    job.prompt = std::move(prompt.ids);
    request.jobs.push_back(std::move(job));
  }
  finish_request(fields, unknown, request.ignored);
  return request;
}

}  // namespace crumb::serve

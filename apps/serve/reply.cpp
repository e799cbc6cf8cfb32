#include "apps/serve/reply.h"

#include <fmt/format.h>

#include <chrono>
#include <random>
#include <utility>

#include "tokenizer/utf8.h"

namespace crumb::serve {
namespace {

int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string random_id() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}{:08x}", device(), device(), device());
}

std::string event_of(const Json& json) { return "data: " + dump(json) + "\n\n"; }

// The prompt as the answer repeats it.
std::string echoed(const ApiRequest& request, const ServedModel& model, std::size_t job) {
  const std::string& text = request.prompts[job / static_cast<std::size_t>(request.choices)];
  if (!text.empty()) return text;
  return tokenizer::replace_invalid_utf8(
      model.engine->tokenizer().decode(request.jobs[job].prompt, true));
}

}  // namespace

Json timings_of(const JobStats& s) {
  const auto per_second = [](double tokens, double seconds) {
    return seconds > 0 ? tokens / seconds : 0.0;
  };
  const auto read = static_cast<double>(s.prompt_tokens - s.cached_tokens);
  const auto decoded = static_cast<double>(std::max<int64_t>(s.generated_tokens - 1, 0));
  return {{"cache_n", s.cached_tokens},
          {"prompt_n", s.prompt_tokens - s.cached_tokens},
          {"prompt_ms", s.prompt_seconds * 1e3},
          {"prompt_per_second", per_second(read, s.prompt_seconds)},
          {"predicted_n", s.generated_tokens},
          {"predicted_ms", s.decode_seconds * 1e3},
          {"predicted_per_second", per_second(decoded, s.decode_seconds)},
          {"queue_ms", s.queue_seconds * 1e3}};
}

std::string error_event(const ApiError& error) { return "data: " + error.body() + "\n\n"; }

Reply::Reply(const Dialect& dialect, std::shared_ptr<Exchange> exchange, const ServedModel& model,
             const ApiRequest& request, HttpFields fields)
    : dialect_(dialect),
      exchange_(std::move(exchange)),
      model_(model),
      id_(dialect.id_prefix + random_id()),
      created_(unix_time()),
      stream_(request.stream),
      include_usage_(request.include_usage),
      logprobs_(request.logprobs),
      timings_per_token_(request.timings_per_token),
      tools_(request.tools),
      choices_(request.choices),
      ignored_(request.ignored),
      truncated_(request.truncated),
      fields_(std::move(fields)),
      seed_(request.jobs.front().sampling.seed),
      all_(request.jobs.size()),
      left_(request.jobs.size()) {
  for (std::size_t i = 0; i < all_.size(); ++i) {
    Choice& choice = all_[i];
    choice.index = static_cast<int64_t>(i);
    choice.logprobs = dialect_.no_logprobs();
    if (!request.echo) continue;
    choice.text = choice.unsent = echoed(request, model_, i);
    if (logprobs_)
      dialect_.add_logprob(choice, *model_.engine, {request.jobs[i].prompt.front(), 0, {}}, false);
  }
}

bool Reply::on_event(JobEvent event) {
  if (failed_) return false;
  Choice& choice = all_[event.job];
  switch (event.kind) {
    case JobEvent::Kind::kPrompt:
      for (const TokenLogprob& token : event.logprobs)
        dialect_.add_logprob(choice, *model_.engine, token, true);
      break;
    case JobEvent::Kind::kToken:
      on_token(choice, event);
      break;
    case JobEvent::Kind::kDone:
      on_done(choice, event);
      break;
    case JobEvent::Kind::kFailed:
      fail(*event.error);
      return false;
    case JobEvent::Kind::kEmbedding:
      break;
  }
  return true;
}

// More of the text; with tools, calls are taken out of it.
void Reply::take(Choice& choice, const std::string& text, bool last) {
  if (!tools_) {
    choice.text += text;
    if (stream_) choice.unsent += text;
    return;
  }
  ToolCallStream::Piece piece = choice.tools.push(text);
  if (last) piece.content += choice.tools.finish().content;
  choice.text += piece.content;
  if (!stream_) return;
  choice.unsent += piece.content;
  if (piece.parts.empty()) return;
  open(choice);
  send_pending(choice);
  send_chunk(Json::array({dialect_.calls(choice, piece.parts, take_logprobs(choice))}),
             timings_per_token_ ? &choice.stats : nullptr);
}

const char* Reply::reason_of(const Choice& choice) const {
  if (choice.reason != FinishReason::kStop) return "length";
  return choice.tools.calls().empty() ? "stop" : "tool_calls";
}

void Reply::on_token(Choice& choice, const JobEvent& event) {
  for (const TokenLogprob& token : event.logprobs)
    dialect_.add_logprob(choice, *model_.engine, token, true);
  choice.stats = event.stats;
  take(choice, event.text, false);
  if (!stream_) return;
  open(choice);
  // Without text there is nothing to show: what else there is goes with the next that has some.
  if (!choice.unsent.empty()) send_pending(choice);
}

void Reply::on_done(Choice& choice, const JobEvent& event) {
  choice.reason = event.reason;
  choice.stats = event.stats;
  choice.done = true;
  take(choice, event.text, true);
  --left_;
  if (stream_) {
    open(choice);
    send_pending(choice);
    send_chunk(Json::array({dialect_.chunk(choice.index, "", nullptr, reason_of(choice))}),
               &choice.stats);
  }
  if (left_ == 0) end();
}

void Reply::fail(const ApiError& error) {
  failed_ = true;
  if (started_) {
    exchange_->write(error_event(error));
    exchange_->finish(false);
    return;
  }
  HttpResponse response;
  response.fields = fields_;
  response.status = error.status;
  if (error.retry_after > 0)
    response.fields.emplace_back("retry-after", std::to_string(error.retry_after));
  response.body = error.body();
  exchange_->respond(std::move(response));
}

// A stream begins with its first event, so that what fails before has a status of its own.
void Reply::open(Choice& choice) {
  if (!started_) {
    started_ = true;
    HttpResponse head;
    head.content_type = "text/event-stream";
    head.fields = fields_;
    head.fields.emplace_back("cache-control", "no-cache");
    head.fields.emplace_back("x-accel-buffering", "no");
    exchange_->start(std::move(head));
  }
  if (choice.started) return;
  choice.started = true;
  if (dialect_.opening == nullptr) return;
  Json opening = dialect_.opening();
  opening["index"] = choice.index;
  send_chunk(Json::array({std::move(opening)}), nullptr);
}

Json Reply::take_logprobs(Choice& choice) const {
  if (!logprobs_) return nullptr;
  return std::exchange(choice.logprobs, dialect_.no_logprobs());
}

void Reply::send_pending(Choice& choice) {
  const bool has_logprobs = logprobs_ && choice.logprobs != dialect_.no_logprobs();
  if (choice.unsent.empty() && !has_logprobs) return;
  send_chunk(Json::array({dialect_.chunk(choice.index, std::exchange(choice.unsent, {}),
                                         take_logprobs(choice), "")}),
             timings_per_token_ ? &choice.stats : nullptr);
}

void Reply::send_chunk(Json choices, const JobStats* stats) {
  Json chunk = envelope(dialect_.chunk_object);
  chunk["choices"] = std::move(choices);
  if (include_usage_) chunk["usage"] = nullptr;
  if (stats != nullptr) chunk["timings"] = timings_of(*stats);
  if (left_ == 0) chunk["x_crumb"] = notes();
  exchange_->write(event_of(chunk));
}

Json Reply::envelope(const char* object) const {
  return {{"id", id_},
          {"object", object},
          {"created", created_},
          {"model", model_.id},
          {"system_fingerprint", model_.fingerprint}};
}

Json Reply::notes() const {
  return {{"seed", seed_}, {"ignored", ignored_}, {"truncated_tokens", truncated_}};
}

Json Reply::usage() const {
  int64_t prompt = 0, cached = 0, completion = 0;
  for (const Choice& choice : all_) {
    completion += choice.stats.generated_tokens;
    if (choice.index % choices_ != 0) continue;  // the same prompt again
    prompt += choice.stats.prompt_tokens;
    cached += choice.stats.cached_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"prompt_tokens_details", {{"cached_tokens", cached}}},
          {"completion_tokens_details", {{"reasoning_tokens", 0}}}};
}

void Reply::end() {
  if (stream_) {
    if (include_usage_) {
      Json chunk = envelope(dialect_.chunk_object);
      chunk["choices"] = Json::array();
      chunk["usage"] = usage();
      exchange_->write(event_of(chunk));
    }
    exchange_->write("data: [DONE]\n\n");
    exchange_->finish(true);
    return;
  }
  Json body = envelope(dialect_.object);
  body["choices"] = Json::array();
  for (Choice& choice : all_)
    body["choices"].push_back(dialect_.whole(choice, take_logprobs(choice), reason_of(choice)));
  body["usage"] = usage();
  if (all_.size() == 1) body["timings"] = timings_of(all_.front().stats);
  body["x_crumb"] = notes();
  HttpResponse response;
  response.fields = fields_;
  response.body = dump(body);
  exchange_->respond(std::move(response));
}

}  // namespace crumb::serve

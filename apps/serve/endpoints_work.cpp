// What makes the model or the tokenizer work.
#include <cmath>

#include "apps/serve/api_request.h"
#include "apps/serve/base64.h"
#include "apps/serve/endpoints.h"
#include "apps/serve/reply.h"
#include "tokenizer/utf8.h"

namespace crumb::serve {
namespace {

// The vectors of one /v1/embeddings call, as they come.
class EmbeddingReply {
 public:
  EmbeddingReply(Service::Call call, const ServedModel& model, const EmbeddingRequest& request)
      : call_(std::move(call)),
        model_(model),
        base64_(request.base64),
        ignored_(request.ignored),
        vectors_(request.jobs.size()),
        left_(request.jobs.size()) {}

  bool on_event(JobEvent event) {
    if (event.kind == JobEvent::Kind::kFailed) {
      respond_error(call_, *event.error);
      return false;
    }
    if (event.kind == JobEvent::Kind::kEmbedding) vectors_[event.job] = std::move(event.embedding);
    if (event.kind == JobEvent::Kind::kDone) {
      tokens_ += event.stats.prompt_tokens;
      if (--left_ == 0) end();
    }
    return true;
  }

 private:
  void end() {
    Json data = Json::array();
    for (std::size_t i = 0; i < vectors_.size(); ++i)
      data.push_back({{"object", "embedding"}, {"index", i}, {"embedding", encoded(vectors_[i])}});
    respond(call_, {200,
                    "application/json",
                    dump({{"object", "list"},
                          {"data", std::move(data)},
                          {"model", model_.id},
                          {"usage", {{"prompt_tokens", tokens_}, {"total_tokens", tokens_}}},
                          {"x_crumb", {{"ignored", ignored_}}}}),
                    {}});
  }

  // Of length 1.
  Json encoded(std::vector<float>& vector) const {
    double sum = 0;
    for (const float x : vector) sum += static_cast<double>(x) * static_cast<double>(x);
    const double scale = sum > 0 ? 1 / std::sqrt(sum) : 0;
    for (float& x : vector) x = static_cast<float>(static_cast<double>(x) * scale);
    if (!base64_) return vector;
    return to_base64({reinterpret_cast<const char*>(vector.data()), vector.size() * sizeof(float)});
  }

  Service::Call call_;
  const ServedModel& model_;
  bool base64_;
  std::vector<std::string> ignored_;
  std::vector<std::vector<float>> vectors_;
  std::size_t left_;
  int64_t tokens_ = 0;
};

// `reply` takes the events until it says that it wants no more.
template <class R>
std::shared_ptr<WorkRequest> work_of(std::vector<Job> jobs, std::shared_ptr<R> reply) {
  auto work = std::make_shared<WorkRequest>();
  work->jobs = std::move(jobs);
  work->on_event = [reply = std::move(reply), self = work.get()](JobEvent event) {
    if (!reply->on_event(std::move(event))) self->cancelled = true;
  };
  return work;
}

// A request for another model is answered, and told so.
HttpFields fields_of(const Service::Call& call, const ApiRequest& request,
                     const ServedModel& model) {
  HttpFields fields = call.cors;
  if (request.other_model)
    fields.emplace_back("warning", "199 crumb \"this server has the model " + model.id + "\"");
  return fields;
}

}  // namespace

void Service::submit(std::shared_ptr<WorkRequest> work, const Call& call) {
  work->max_seconds = static_cast<double>(options_.limits.request_seconds);
  work->blocked = [exchange = call.exchange, most = options_.limits.send_buffer_bytes] {
    return exchange->unsent() > most;
  };
  call.exchange->on_gone([this, weak = std::weak_ptr(work)] {
    if (const auto left = weak.lock()) scheduler_->cancel(left);
  });
  scheduler_->submit(std::move(work));
}

void Endpoints::chat(Service& service, const Service::Call& call) {
  const Limits& limits = service.options_.limits;
  ApiRequest request =
      read_chat_request(parse_body(call.request.body, limits), service.model_, limits);
  auto reply = std::make_shared<Reply>(kChatDialect, call.exchange, service.model_, request,
                                       fields_of(call, request, service.model_));
  service.submit(work_of(std::move(request.jobs), std::move(reply)), call);
}

void Endpoints::completions(Service& service, const Service::Call& call) {
  const Limits& limits = service.options_.limits;
  ApiRequest request =
      read_completion_request(parse_body(call.request.body, limits), service.model_, limits);
  auto reply = std::make_shared<Reply>(kCompletionDialect, call.exchange, service.model_, request,
                                       fields_of(call, request, service.model_));
  service.submit(work_of(std::move(request.jobs), std::move(reply)), call);
}

void Endpoints::embeddings(Service& service, const Service::Call& call) {
  const Limits& limits = service.options_.limits;
  EmbeddingRequest request =
      read_embedding_request(parse_body(call.request.body, limits), service.model_, limits);
  Service::Call kept = call;
  kept.request.body.clear();
  auto reply = std::make_shared<EmbeddingReply>(std::move(kept), service.model_, request);
  service.submit(work_of(std::move(request.jobs), std::move(reply)), call);
}

// llama.cpp's dialect (content, add_special, parse_special, with_pieces) and vLLM's (prompt,
// add_special_tokens); the answer has the fields of both.
void Endpoints::tokenize(Service& service, const Service::Call& call) {
  const Json body = parse_body(call.request.body, service.options_.limits);
  const ServedModel& model = service.model_;
  Fields fields(body, "");
  read_model_name(fields, model);
  const auto content = fields.text("content"), prompt = fields.text("prompt");
  if (content.has_value() == prompt.has_value())
    throw bad_field("content", "a string, here or in prompt", content ? "both" : "nothing");
  const auto add_special = fields.boolean("add_special");
  const auto add_special_tokens = fields.boolean("add_special_tokens");
  const bool literal = fields.boolean("parse_special").value_or(true);
  const bool pieces = fields.boolean("with_pieces").value_or(false);
  fields.boolean("return_token_strs");
  UnknownFields unknown{model.strict_fields};
  fields.finish(unknown);
  const auto& tokenizer = model.engine->tokenizer();
  std::vector<int32_t> ids = tokenizer.encode(content ? *content : *prompt, literal);
  const bool special = add_special.value_or(add_special_tokens.value_or(prompt.has_value()));
  if (!special && tokenizer.data().add_bos && !ids.empty() && ids.front() == tokenizer.data().bos)
    ids.erase(ids.begin());
  Json tokens = Json::array();
  for (const int32_t id : ids) {
    if (pieces)
      tokens.push_back({{"id", id}, {"piece", token_text(*model.engine, id)}});
    else
      tokens.push_back(id);
  }
  respond(call, {200,
                 "application/json",
                 dump({{"tokens", std::move(tokens)},
                       {"count", ids.size()},
                       {"max_model_len", model.context}}),
                 {}});
}

void Endpoints::detokenize(Service& service, const Service::Call& call) {
  const Json body = parse_body(call.request.body, service.options_.limits);
  const ServedModel& model = service.model_;
  Fields fields(body, "");
  read_model_name(fields, model);
  const Json* tokens = fields.array("tokens", 0, service.options_.limits.body_bytes);
  if (tokens == nullptr) throw bad_field("tokens", "an array of token ids", "nothing");
  UnknownFields unknown{model.strict_fields};
  fields.finish(unknown);
  const std::vector<int32_t> ids = read_ids(*tokens, "tokens", model);
  const std::string text =
      tokenizer::replace_invalid_utf8(model.engine->tokenizer().decode(ids, true));
  respond(call, {200, "application/json", dump({{"content", text}, {"prompt", text}}), {}});
}

}  // namespace crumb::serve

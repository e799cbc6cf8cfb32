// What the server says of itself.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "apps/serve/embedded.h"
#include "apps/serve/endpoints.h"
#include "apps/serve/json_body.h"
#include "apps/serve/openapi.h"

namespace crumb::serve {
namespace {

void respond_json(const Service::Call& call, const Json& json) {
  respond(call, {200, "application/json", dump(json), {}});
}

Json model_json(const ServedModel& model) {
  const ModelInfo& info = model.engine->info();
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "crumb"},
          {"meta",
           {{"n_ctx", model.context},
            {"n_ctx_train", model.engine->config().context},
            {"n_vocab", model.engine->config().vocab},
            {"n_embd", model.engine->config().dim},
            {"n_params", info.parameters},
            {"size", info.file_bytes},
            {"bits_per_weight", info.total_bpw},
            {"quant", info.weights}}}};
}

double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double open_descriptors() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error))
    ++count;
  return count;
}

std::string name_of_token(const ServedModel& model, int32_t id) {
  return id < 0 ? std::string() : token_text(*model.engine, id);
}

Json token_or_null(const ServedModel& model, int32_t id) {
  return id < 0 ? Json(nullptr) : Json(name_of_token(model, id));
}

}  // namespace

void Endpoints::health(Service& service, const Service::Call& call) {
  if (service.draining_) throw too_busy("the server is shutting down");
  respond_json(call, {{"status", "ok"}});
}

void Endpoints::models(Service& service, const Service::Call& call) {
  respond_json(call, {{"object", "list"}, {"data", Json::array({model_json(service.model_)})}});
}

void Endpoints::model(Service& service, const Service::Call& call) {
  const std::string_view id =
      std::string_view(call.request.path).substr(std::string_view("/v1/models/").size());
  if (id != service.model_.id)
    throw ApiError{404, "there is no such model here", "model", "model_not_found"};
  respond_json(call, model_json(service.model_));
}

void Endpoints::props(Service& service, const Service::Call& call) {
  const ServedModel& model = service.model_;
  const SamplingOptions s = default_sampling(model.engine->generation());
  respond_json(call, {{"model_alias", model.id},
                      {"build_info",
                       fmt::format("{} ({})", service.options_.version, service.options_.commit)},
                      {"total_slots", model.slots},
                      {"default_generation_settings",
                       {{"n_ctx", model.context},
                        {"temperature", s.temperature},
                        {"top_k", s.top_k},
                        {"top_p", s.top_p},
                        {"min_p", s.min_p},
                        {"repeat_penalty", s.repeat_penalty},
                        {"repeat_last_n", s.repeat_last_n}}},
                      {"chat_template", model.engine->chat_template()},
                      {"template_tools", model.template_tools},
                      {"bos_token", name_of_token(model, model.engine->tokenizer().data().bos)},
                      {"eos_token", name_of_token(model, model.engine->tokenizer().data().eos)},
                      {"modalities", {{"vision", false}, {"audio", false}}},
                      {"isa", model.engine->backend().name},
                      {"threads", model.engine->thread_plan().threads}});
}

void Endpoints::slots(Service& service, const Service::Call& call) {
  Json all = Json::array();
  for (const SlotState& slot : service.scheduler_->slots())
    all.push_back({{"id", slot.id},
                   {"n_ctx", service.model_.context},
                   {"is_processing", slot.busy},
                   {"is_reading", slot.reading},
                   {"n_past", slot.cached_tokens},
                   {"n_prompt_tokens", slot.prompt_tokens},
                   {"n_prompt_read", slot.prompt_read},
                   {"n_decoded", slot.generated}});
  respond_json(call, all);
}

void Endpoints::metrics(Service& service, const Service::Call& call) {
  const Scheduler& scheduler = *service.scheduler_;
  const auto number = [](int64_t n) { return static_cast<double>(n); };
  std::vector<Gauge> gauges = {
      {"crumb_requests_in_flight", "", "Requests waiting or running.",
       number(scheduler.in_flight())},
      {"crumb_queue_length", "", "Requests waiting for a slot.", number(scheduler.waiting())},
      {"crumb_kv_bytes", "", "Reserved for keys and values of all slots.",
       number(scheduler.kv_bytes())},
      {"crumb_model_bytes", "", "Size of the model's file.",
       number(service.model_.engine->info().file_bytes)},
      {"process_resident_memory_bytes", "", "Resident memory.", resident_bytes()},
      {"process_open_fds", "", "Open descriptors.", open_descriptors()},
      {"process_start_time_seconds", "", "Unix time of the start.", service.started_},
      {"crumb_build_info",
       fmt::format("{{version=\"{}\",commit=\"{}\"}}", service.options_.version,
                   service.options_.commit),
       "The build.", 1}};
  for (const SlotState& slot : scheduler.slots())
    gauges.push_back({"crumb_kv_tokens", fmt::format("{{slot=\"{}\"}}", slot.id),
                      "Tokens a slot holds.", number(slot.cached_tokens)});
  respond(call,
          {200, "text/plain; version=0.0.4; charset=utf-8", service.metrics_.text(gauges), {}});
}

void Endpoints::openapi(Service& service, const Service::Call& call) {
  respond(call, {200, "application/json", openapi_text(service.model_), {}});
}

// The page's own style and script carry a number that nobody can guess; the browser runs nothing
// else, and asks nobody else.
void Endpoints::page(Service&, const Service::Call& call) {
  std::random_device device;
  const std::string nonce =
      fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device());
  constexpr std::string_view kPlace = "{{nonce}}";
  std::string text(kPage);
  for (std::size_t at = text.find(kPlace); at != std::string::npos; at = text.find(kPlace, at))
    text.replace(at, kPlace.size(), nonce);
  respond(
      call,
      {200,
       "text/html; charset=utf-8",
       std::move(text),
       {{"content-security-policy",
         fmt::format(
             "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src "
             "'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
             nonce)},
        {"referrer-policy", "no-referrer"},
        {"cache-control", "no-store"}}});
}

void Endpoints::tokenizer_info(Service& service, const Service::Call& call) {
  const ServedModel& model = service.model_;
  const auto& data = model.engine->tokenizer().data();
  respond_json(call, {{"tokenizer_class", data.model},
                      {"vocab_size", data.tokens.size()},
                      {"model_max_length", model.context},
                      {"bos_token", token_or_null(model, data.bos)},
                      {"eos_token", token_or_null(model, data.eos)},
                      {"pad_token", token_or_null(model, data.pad)},
                      {"unk_token", token_or_null(model, data.unk)},
                      {"add_bos_token", data.add_bos},
                      {"chat_template", model.engine->chat_template()}});
}

}  // namespace crumb::serve

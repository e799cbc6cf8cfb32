#include "apps/serve/service.h"

#include <chrono>
#include <thread>

#include "apps/serve/endpoints.h"

namespace crumb::serve {
namespace {

const Service::Route kRoutes[] = {
    {"GET", "/", true, false, Endpoints::page},
    {"GET", "/health", true, false, Endpoints::health},
    {"GET", "/v1/health", true, false, Endpoints::health},
    {"GET", "/livez", true, false, Endpoints::health},
    {"GET", "/readyz", true, false, Endpoints::health},
    {"GET", "/v1/models", false, false, Endpoints::models},
    {"GET", "/v1/models/*", false, false, Endpoints::model},
    {"GET", "/props", false, false, Endpoints::props},
    {"GET", "/slots", false, false, Endpoints::slots},
    {"GET", "/metrics", false, false, Endpoints::metrics},
    {"GET", "/openapi.json", false, false, Endpoints::openapi},
    {"GET", "/tokenizer_info", false, false, Endpoints::tokenizer_info},
    {"POST", "/tokenize", false, true, Endpoints::tokenize},
    {"POST", "/detokenize", false, true, Endpoints::detokenize},
    {"POST", "/v1/chat/completions", false, true, Endpoints::chat},
    {"POST", "/v1/completions", false, true, Endpoints::completions},
    {"POST", "/v1/embeddings", false, true, Endpoints::embeddings},
};

bool matches(std::string_view pattern, std::string_view path) {
  if (!pattern.ends_with('*')) return pattern == path;
  pattern.remove_suffix(1);
  return path.size() > pattern.size() && path.starts_with(pattern);
}

const Service::Route* find_route(std::string_view path) {
  for (const auto& route : kRoutes)
    if (matches(route.path, path)) return &route;
  return nullptr;
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Service::Service(ServedModel model, const SchedulerOptions& scheduler, ServiceOptions options)
    : model_(std::move(model)),
      options_(std::move(options)),
      guard_(options_.guard),
      started_(unix_time()),
      scheduler_(std::make_unique<Scheduler>(model_.engine, scheduler, metrics_)),
      tasks_(std::make_unique<TaskThread>()) {
  model_.context = scheduler_->context();
  model_.slots = scheduler_->slot_count();
}

Service::~Service() {
  tasks_.reset();  // it submits to the scheduler
  scheduler_.reset();
}

void respond(const Service::Call& call, HttpResponse response) {
  response.fields.insert(response.fields.end(), call.cors.begin(), call.cors.end());
  call.exchange->respond(std::move(response));
}

void respond_error(const Service::Call& call, const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = error.body();
  if (error.retry_after > 0)
    response.fields.emplace_back("retry-after", std::to_string(error.retry_after));
  if (error.status == 401) response.fields.emplace_back("www-authenticate", "Bearer");
  respond(call, std::move(response));
}

void Service::handle(std::shared_ptr<Exchange> exchange, HttpRequest request) {
  Call call{std::move(exchange), std::move(request), {}};
  try {
    guard_.check_source(call.request);
    call.cors = guard_.cors(call.request);
    if (call.request.method == "OPTIONS" && !call.cors.empty()) {
      respond(call, {204, "", "", {}});
      return;
    }
    const Route* route = find_route(call.request.path);
    if (route == nullptr || !route->open) guard_.check_key(call.request);
    if (route == nullptr) throw not_found("there is nothing at this path");
    const bool same = call.request.method == route->method ||
                      (call.request.method == "HEAD" && std::string_view(route->method) == "GET");
    if (!same) {
      const std::string method = route->method;
      const ApiError error{405, "this path takes " + method, {}, "method_not_allowed"};
      respond(call, {405, "application/json", error.body(), {{"allow", method}}});
      return;
    }
    if (std::string_view(route->method) == "POST") Guard::check_json(call.request);
    if (!route->slow) return run(*route, call);
    tasks_->add([this, route, call = std::move(call)] {
      if (!call.exchange->gone()) run(*route, call);
    });
  } catch (const ApiError& error) {
    respond_error(call, error);
  }
}

// Every failure of an endpoint becomes an answer. Without memory that is tried a few times: what
// the request took is free by then, and others may end.
void Service::run(const Route& route, const Call& call) {
  constexpr int kTries = 5;
  for (int tries = 0; tries < kTries; ++tries) {
    try {
      if (tries == 0) return attempt(route, call);
      return respond_error(call, too_busy("out of memory"));
    } catch (const std::bad_alloc&) {
      if (tries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
}

void Service::attempt(const Route& route, const Call& call) {
  try {
    route.run(*this, call);
  } catch (const ApiError& error) {
    respond_error(call, error);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    respond_error(call, internal_error(error.what()));
  }
}

void Service::drain() {
  draining_ = true;
  scheduler_->drain();
}

void Service::count(const AccessLogEntry& entry) {
  const Route* route = find_route(entry.path);
  if (entry.status == 0) metrics_.cancelled();
  metrics_.request_done(route == nullptr ? "other" : route->path, entry.status, entry.seconds);
}

}  // namespace crumb::serve

// The endpoints: what answers which path, behind the guard.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "apps/serve/guard.h"
#include "apps/serve/http_server.h"
#include "apps/serve/metrics.h"
#include "apps/serve/scheduler.h"
#include "apps/serve/served_model.h"
#include "apps/serve/task_thread.h"

namespace crumb::serve {

struct ServiceOptions {
  Limits limits;
  GuardOptions guard;
  std::string version, commit;
};

class Service {
 public:
  Service(ServedModel model, const SchedulerOptions& scheduler, ServiceOptions options);
  ~Service();

  // Of the network's loop; does not block.
  void handle(std::shared_ptr<Exchange> exchange, HttpRequest request);
  // From now on new work is refused; what runs goes on.
  void drain();
  void count(const AccessLogEntry& entry);  // for the metrics

  const ServedModel& model() const { return model_; }
  const Scheduler& scheduler() const { return *scheduler_; }

  // What a route's function gets.
  struct Call {
    std::shared_ptr<Exchange> exchange;
    HttpRequest request;
    HttpFields cors;
  };
  struct Route;

 private:
  friend struct Endpoints;
  void run(const Route& route, const Call& call);
  void attempt(const Route& route, const Call& call);
  void submit(std::shared_ptr<WorkRequest> work, const Call& call);

  ServedModel model_;
  ServiceOptions options_;
  Guard guard_;
  Metrics metrics_;
  std::atomic<bool> draining_{false};
  double started_;  // Unix time, for the metrics
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<TaskThread> tasks_;
};

// Sends a whole answer with the call's further fields.
void respond(const Service::Call& call, HttpResponse response);
void respond_error(const Service::Call& call, const ApiError& error);

}  // namespace crumb::serve

// Options of `crumb serve`.
#pragma once
#include <string>

#include "apps/model_args.h"
#include "apps/serve/guard.h"
#include "apps/serve/http_server.h"
#include "apps/serve/scheduler.h"
#include "apps/verbs.h"

namespace crumb::apps {

struct ServeArgs {
  ModelArgs model;
  serve::HttpServerOptions http;
  serve::GuardOptions guard;
  serve::SchedulerOptions scheduler;
  std::string alias, sandbox = "auto";  // "auto", "on", "off"
  std::string on_overflow = "error";    // "error", "drop-oldest"
  bool strict = false, strict_model = false, insecure = false, quiet = false;
};

// False if help was printed. Throws Error(kUsage), also for an address that others can reach when
// there is neither a key nor --insecure-no-auth.
bool parse_serve_args(Context& context, ServeArgs& serve);

// The name of a model's file without folder and extension; of what is left, only characters that
// need no escape in a path.
std::string model_stem(const std::string& path);

// Throws Error(kMemory) if weights and caches cannot fit this machine.
void require_serve_memory(const ServeArgs& serve, const Engine& engine);

}  // namespace crumb::apps

#include <fmt/format.h>

#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>

#include "apps/build_info.h"
#include "apps/output.h"
#include "apps/serve/sandbox.h"
#include "apps/serve/service.h"
#include "apps/serve/tool_request.h"
#include "apps/serve_args.h"
#include "apps/verbs.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

using serve::AccessLogEntry;

serve::ServedModel served_model(const ServeArgs& given, std::shared_ptr<const Engine> engine) {
  serve::ServedModel model;
  model.id = given.alias.empty() ? model_stem(engine->info().path) : given.alias;
  model.strict_id = given.strict_model;
  model.strict_fields = given.strict;
  model.drops_oldest = given.on_overflow == "drop-oldest";
  model.created = std::chrono::duration_cast<std::chrono::seconds>(
                      std::chrono::system_clock::now().time_since_epoch())
                      .count();
  model.fingerprint = fmt::format("crumb-{}-{}", kBuildInfo.version, kBuildInfo.commit);
  try {
    model.prompt.emplace(engine);
  } catch (const Error& error) {
    model.prompt_error = error.what();
    note("crumb: warning: no chat: {}\n", one_line(error.what()));
  }
  model.template_tools = serve::says_tools(engine->chat_template());
  model.engine = std::move(engine);
  return model;
}

// One line a request: never what was said in it.
void log_access(const AccessLogEntry& entry) {
  const std::string path = one_line(entry.path.substr(0, 128));
  const std::string status = entry.status == 0 ? "left" : std::to_string(entry.status);
  note("{} {} {} {} {}B {:.1f} ms\n", entry.peer, entry.method, path, status, entry.bytes,
       entry.seconds * 1e3);
}

std::string refusal_body(int status, const std::string& cause) {
  return serve::ApiError{status, cause, {}, "bad_request"}.body();
}

void banner(const ServeArgs& given, const serve::Service& service, uint16_t port, bool sandboxed) {
  const serve::ServedModel& model = service.model();
  const ModelInfo& info = model.engine->info();
  const auto& plan = model.engine->thread_plan();
  const bool v6 = given.http.address.find(':') != std::string::npos;
  note("crumb {} · {} · {} ({:.2f} bpw, {})\n", kBuildInfo.version, one_line(model.id),
       info.weights, info.total_bpw, human_bytes(static_cast<double>(info.file_bytes)));
  note("{} threads · kernels {} · {} slots x {} tokens · KV {} at most · sandbox {}\n",
       plan.threads, model.engine->backend().name, model.slots, model.context,
       human_bytes(static_cast<double>(service.scheduler().kv_bytes())), sandboxed ? "on" : "off");
  if (given.guard.keys.empty() && given.insecure)
    note("crumb: warning: anyone who reaches this address may ask: no API key is set\n");
  note("listening http://{}{}{}:{}\n", v6 ? "[" : "", given.http.address, v6 ? "]" : "", port);
}

// Whether to confine this process; says so if that was wished for and cannot be.
bool wants_sandbox(const ServeArgs& given) {
  if (given.sandbox == "off") return false;
  std::string lack = serve::sandbox_missing();
  for (const char* tool : {"__asan_init", "__tsan_init"})
    if (dlsym(RTLD_DEFAULT, tool) != nullptr) lack = "a build without sanitizers";
  if (lack.empty()) return true;
  if (given.sandbox == "on")
    throw Error(ExitCode::kUsage, "no sandbox here (missing: " + lack + ")");
  note("crumb: warning: no sandbox (missing: {})\n", lack);
  return false;
}

// Tells systemd (Type=notify) that clients are served; without it there is nobody to tell.
void notify_ready() {
  const auto path = environment("NOTIFY_SOCKET");
  sockaddr_un address{};
  if (!path || path->size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  path->copy(address.sun_path, path->size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // the abstract name space
  const int to = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (to < 0) return;
  constexpr std::string_view kReady = "READY=1";
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path->size());
  if (sendto(to, kReady.data(), kReady.size(), MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&address), length) < 0)
    note("crumb: warning: cannot tell systemd that the server is ready\n");
  close(to);
}

// SIGTERM or SIGINT: what runs ends in peace, within a time; the second one ends it all at once.
class Shutdown {
 public:
  Shutdown(Signals& signals, serve::HttpServer& server, serve::Service& service, bool quiet)
      : signals_(signals), server_(server), service_(service), quiet_(quiet) {}

  void on_signal(int64_t drain_seconds) {
    const int signal = signals_.pending();
    if (signal == 0) return;
    signals_.forget();
    if (asked_) return server_.stop();
    asked_ = true;
    if (!quiet_) note("shutting down: {} requests under way\n", service_.scheduler().in_flight());
    service_.drain();
    server_.drain();
    server_.after(static_cast<double>(drain_seconds), [this] { server_.stop(); });
  }

 private:
  Signals& signals_;
  serve::HttpServer& server_;
  serve::Service& service_;
  bool quiet_, asked_ = false;
};

}  // namespace

int serve(Context& context) {
  ServeArgs given;
  if (!parse_serve_args(context, given)) return 0;
  context.signals.watch();
  std::signal(SIGHUP, SIG_IGN);  // nothing to read anew: the terminal's end is no reason to stop
  std::unique_ptr<serve::Service> service;
  given.http.error_body = refusal_body;
  given.http.log = [&](const AccessLogEntry& entry) {
    service->count(entry);
    if (!given.quiet) log_access(entry);
  };
  // The port first: whether it is free is known before the model is read. Clients wait meanwhile.
  serve::HttpServer server(given.http, [&](auto exchange, auto request) {
    service->handle(std::move(exchange), std::move(request));
  });
  const bool sandboxed = wants_sandbox(given);
  given.model.path = model_path(given.model);
  if (sandboxed) serve::confine_files({given.model.path});
  auto engine = load_engine(given.model);
  given.scheduler.context = given.model.context;
  given.scheduler.kv = kv_type(given.model.kv);
  require_serve_memory(given, *engine);
  service = std::make_unique<serve::Service>(
      served_model(given, std::move(engine)), given.scheduler,
      serve::ServiceOptions{given.http.limits, given.guard, std::string(kBuildInfo.version),
                            std::string(kBuildInfo.commit)});
  Shutdown shutdown(context.signals, server, *service, given.quiet);
  server.watch(context.signals.descriptor(),
               [&] { shutdown.on_signal(given.http.limits.drain_seconds); });
  notify_ready();  // clients wait in the queue until run()
  if (sandboxed) serve::confine_calls();
  banner(given, *service, server.port(), sandboxed);
  server.run();
  service.reset();  // its threads answer through the server
  return 0;
}

}  // namespace crumb::apps

// HTTP/1.1 on Boost.Beast: one thread, one loop, deadlines everywhere.
//
// The thread that calls run() owns every socket; requests go to the handler on it, which must not
// block. A client that leaves, reads nothing or sends nothing costs no one else anything: there is
// no thread per connection to hold.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "apps/serve/http_types.h"
#include "apps/serve/limits.h"

namespace crumb::serve {

struct AccessLogEntry {
  std::string peer, method, path;
  int status = 0;  // 0: the client left before an answer
  int64_t bytes = 0;
  double seconds = 0;
};

struct HttpServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 8080;  // 0: any free one
  Limits limits;
  std::function<void(const AccessLogEntry&)> log;  // may be empty
  // The body of what is refused before the handler sees it.
  std::function<std::string(int status, const std::string& cause)> error_body;
};

class HttpServer {
 public:
  // Listens. Throws Error(kUsage) for an address that is none, IoError if it cannot be bound.
  HttpServer(HttpServerOptions options, HttpHandler handler);
  ~HttpServer();
  uint16_t port() const;

  // Serves until stop(), or until drain() and the last answer.
  void run();
  // Calls `on_signal` on the loop whenever the descriptor is readable; it must read it empty.
  void watch(int descriptor, std::function<void()> on_signal);
  // Any thread: accepts nothing more, closes idle connections, and ends run() with the last answer.
  void drain();
  // Any thread: run() ends now.
  void stop();
  // Calls `task` on the loop after `seconds`, once.
  void after(double seconds, std::function<void()> task);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::serve

// A request and its answer, as the rest of the server sees them.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crumb::serve {

using HttpFields = std::vector<std::pair<std::string, std::string>>;  // names in lower case

struct HttpRequest {
  std::string method, path;  // path without the query
  HttpFields fields;
  std::string body;
  std::string peer;  // address, for the log

  // The value of the first field of that name, null if there is none.
  const std::string* field(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpFields fields = {};  // further ones
};

// What becomes of one request. All functions may be called from any thread and are without effect
// once the client is gone.
class Exchange {
 public:
  virtual ~Exchange() = default;
  // The whole answer; or
  virtual void respond(HttpResponse response) = 0;
  // a stream: its head (the body is ignored), pieces, its end. `complete` false: the connection is
  // cut, so that the client can tell.
  virtual void start(HttpResponse head) = 0;
  virtual void write(std::string piece) = 0;
  virtual void finish(bool complete) = 0;
  // Bytes written that the client has not taken yet.
  virtual int64_t unsent() const = 0;
  virtual bool gone() const = 0;
  // Called once, on the network's thread, when the client leaves before the answer's end.
  virtual void on_gone(std::function<void()> callback) = 0;
};

using HttpHandler = std::function<void(std::shared_ptr<Exchange>, HttpRequest)>;

const char* reason_phrase(int status);

}  // namespace crumb::serve

// Who may ask: names the server answers to, origins of web pages, keys.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/serve/http_types.h"

namespace crumb::serve {

struct GuardOptions {
  std::vector<std::string> hosts;    // beside the loopback names, in lower case, without a port
  std::vector<std::string> keys;     // empty: no key is needed
  std::vector<std::string> origins;  // other pages that may ask (CORS), "https://name:port"
};

inline constexpr std::size_t kMaxKeyBytes = 256;

// The host of a Host field or an authority: without the port, in lower case, brackets kept. Nothing
// if it is malformed.
std::optional<std::string> host_name(std::string_view authority);

// Text equal, in a time that depends on neither (both at most kMaxKeyBytes; longer ones are never
// equal).
bool same_key(std::string_view given, std::string_view key);

// Lines of a key file: blanks around are dropped, empty lines and those that start with # ignored.
// Throws Error(kUsage) for a key that is too long, shorter than 8 bytes or not printable ASCII, and
// if there is none.
std::vector<std::string> keys_of(std::string_view text, const std::string& source);

class Guard {
 public:
  explicit Guard(GuardOptions options) : options_(std::move(options)) {}

  // A web page of another site can make a browser send requests here, and a name it controls can
  // point here (DNS rebinding): ApiError 403 for a host or origin that is not ours.
  void check_source(const HttpRequest& request) const;
  // ApiError 401, the same for a missing and a wrong key. All keys are compared.
  void check_key(const HttpRequest& request) const;
  // ApiError 415 unless the body says it is JSON.
  static void check_json(const HttpRequest& request);
  // The fields that let the page at the request's origin read the answer; none for others.
  HttpFields cors(const HttpRequest& request) const;
  bool has_keys() const { return !options_.keys.empty(); }

 private:
  bool allowed_origin(const std::string& origin) const;
  GuardOptions options_;
};

}  // namespace crumb::serve

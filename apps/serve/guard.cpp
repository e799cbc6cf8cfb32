#include "apps/serve/guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "apps/serve/api_error.h"
#include "models/errors.h"

namespace crumb::serve {
namespace {

constexpr std::string_view kLoopbackNames[] = {"localhost", "127.0.0.1", "[::1]"};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r'))
    text.remove_suffix(1);
  return text;
}

bool only_digits(std::string_view text) {
  return text.size() <= 5 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

// "Bearer KEY" with the scheme in any case, or nothing.
std::string_view bearer(std::string_view field) {
  field = trimmed(field);
  constexpr std::string_view kScheme = "bearer ";
  if (field.size() < kScheme.size() || lower(field.substr(0, kScheme.size())) != kScheme) return {};
  return trimmed(field.substr(kScheme.size()));
}

}  // namespace

std::optional<std::string> host_name(std::string_view authority) {
  std::string_view name = authority, port;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    name = authority.substr(0, end + 1);
    port = authority.substr(end + 1);
    if (!port.empty() && !port.starts_with(':')) return std::nullopt;
    if (!port.empty()) port.remove_prefix(1);
  } else if (const std::size_t colon = authority.find(':'); colon != std::string_view::npos) {
    name = authority.substr(0, colon);
    port = authority.substr(colon + 1);
  }
  if (name.empty() || !only_digits(port)) return std::nullopt;
  return lower(name);
}

bool same_key(std::string_view given, std::string_view key) {
  std::array<unsigned char, kMaxKeyBytes> a{}, b{};
  std::copy_n(given.begin(), std::min(given.size(), a.size()), a.begin());
  std::copy_n(key.begin(), std::min(key.size(), b.size()), b.begin());
  unsigned difference = given.size() == key.size() && key.size() <= kMaxKeyBytes ? 0 : 1;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

std::vector<std::string> keys_of(std::string_view text, const std::string& source) {
  std::vector<std::string> keys;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.starts_with('#')) continue;
    // The key itself must not reach a terminal or a log.
    if (line.size() < 8 || line.size() > kMaxKeyBytes ||
        !std::all_of(line.begin(), line.end(), [](char c) { return c > ' ' && c < 0x7F; }))
      throw Error(ExitCode::kUsage,
                  fmt::format("invalid API key ({}: expected 8..{} printable ASCII characters)",
                              source, kMaxKeyBytes));
    keys.emplace_back(line);
  }
  if (keys.empty()) throw Error(ExitCode::kUsage, fmt::format("no API key in {}", source));
  return keys;
}

bool Guard::allowed_origin(const std::string& origin) const {
  return contains(options_.origins, lower(origin));
}

void Guard::check_source(const HttpRequest& request) const {
  const std::string* host = request.field("host");
  if (host != nullptr) {  // an HTTP/1.0 request may have none
    const auto name = host_name(trimmed(*host));
    if (!name) throw ApiError{400, "the Host field is malformed", {}, "bad_host"};
    if (std::find(std::begin(kLoopbackNames), std::end(kLoopbackNames), *name) ==
            std::end(kLoopbackNames) &&
        !contains(options_.hosts, *name))
      throw ApiError{
          403, "this server does not answer to that host (--allowed-host)", {}, "bad_host"};
  }
  const std::string* origin = request.field("origin");
  if (origin == nullptr || allowed_origin(*origin)) return;
  // Our own page: the origin is the name the browser used.
  if (host != nullptr && lower(*origin) == "http://" + lower(*host)) return;
  throw ApiError{403, "pages of that origin may not ask (--cors-origin)", {}, "bad_origin"};
}

void Guard::check_key(const HttpRequest& request) const {
  if (options_.keys.empty()) return;
  std::string_view given;
  if (const std::string* field = request.field("authorization")) given = bearer(*field);
  if (const std::string* field = request.field("x-api-key"); field != nullptr && given.empty())
    given = trimmed(*field);
  bool found = false;
  for (const std::string& key : options_.keys) found = same_key(given, key) || found;
  if (!found)
    throw ApiError{
        401, "a valid API key is needed (Authorization: Bearer KEY)", {}, "invalid_api_key"};
}

void Guard::check_json(const HttpRequest& request) {
  const std::string* type = request.field("content-type");
  const std::string name =
      type == nullptr ? "" : lower(trimmed(std::string_view(*type).substr(0, type->find(';'))));
  if (name != "application/json")
    throw ApiError{415,
                   "the body must be JSON (Content-Type: application/json)",
                   {},
                   "unsupported_media_type"};
}

HttpFields Guard::cors(const HttpRequest& request) const {
  const std::string* origin = request.field("origin");
  if (origin == nullptr || !allowed_origin(*origin)) return {};
  return {{"access-control-allow-origin", *origin},
          {"access-control-allow-methods", "GET, POST, OPTIONS"},
          {"access-control-allow-headers", "authorization, content-type, x-api-key"},
          {"vary", "origin"}};
}

}  // namespace crumb::serve

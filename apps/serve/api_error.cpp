#include "apps/serve/api_error.h"

#include "apps/serve/json_body.h"

namespace crumb::serve {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "unavailable_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

}  // namespace

std::string ApiError::body() const {
  return dump(Json{{"error",
                    {{"message", message},
                     {"type", type_of(status)},
                     {"param", text_or_null(param)},
                     {"code", text_or_null(code)}}}});
}

ApiError bad_field(const std::string& field, const std::string& expected,
                   const std::string& found) {
  return {400, "invalid value (" + field + ": expected " + expected + ", found " + found + ")",
          field, "invalid_value"};
}

ApiError not_found(const std::string& what) { return {404, what, {}, "not_found"}; }

ApiError too_busy(const std::string& message) { return {503, message, {}, "overloaded", 1}; }

ApiError internal_error(const std::string& what) { return {500, what, {}, "internal_error"}; }

}  // namespace crumb::serve

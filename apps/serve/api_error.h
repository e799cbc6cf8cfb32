// A request that is refused, in the shape OpenAI's clients know.
#pragma once
#include <string>

namespace crumb::serve {

struct ApiError {
  int status = 400;
  std::string message;
  std::string param = {};  // the field at fault, empty: none
  std::string code = {};   // for machines, empty: none
  int retry_after = 0;     // seconds, 0: no such header

  // {"error":{"message","type","param","code"}}; the type follows from the status.
  std::string body() const;
};

ApiError bad_field(const std::string& field, const std::string& expected, const std::string& found);
ApiError not_found(const std::string& what);
ApiError too_busy(const std::string& message);
ApiError internal_error(const std::string& what);

}  // namespace crumb::serve

#include <utility>

#include "engine/json_pattern.h"

namespace crumb::json {

// Of RFC 3339, 4122, 791, 4291, 5321, 1123 and 3986 the plain forms, which every reader takes. Leap
// days and leap seconds are not written.
std::string pattern_of_format(std::string_view format) {
  const std::string date =
      R"([1-9]\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|)"
      R"(02-(0[1-9]|1\d|2[0-8])))";
  const std::string time =
      R"(([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-](0\d|1[0-3]):[0-5]\d))";
  const std::string hours = R"((\d{1,2}H(\d{1,2}M(\d{1,2}S)?)?|\d{1,2}M(\d{1,2}S)?|\d{1,2}S))";
  const std::string days = R"((\d{1,4}Y(\d{1,2}M(\d{1,2}D)?)?|\d{1,4}M(\d{1,2}D)?|\d{1,4}D))";
  const std::string octet = R"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))";
  const std::string label = "[a-z0-9]{1,20}(-[a-z0-9]{1,20})?";
  const std::string host = "(" + label + R"(\.){1,3}[a-z]{2,12})";
  const std::pair<std::string_view, std::string> table[] = {
      {"date", date},
      {"time", time},
      {"date-time", date + "T" + time},
      {"duration", "P(" + days + "(T" + hours + ")?|T" + hours + R"(|\d{1,4}W))"},
      {"uuid", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"},
      {"ipv4", octet + R"((\.)" + octet + "){3}"},
      {"ipv6", "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}"},
      {"email", "[A-Za-z0-9][A-Za-z0-9_-]{0,19}([.+][A-Za-z0-9_-]{1,20}){0,2}@" + host},
      {"hostname", host},
      {"uri", "https?://" + host +
                  R"((:[1-9]\d{0,3})?(/[A-Za-z0-9._~-]{0,20}){0,4}(\?[A-Za-z0-9._~=&-]{0,40})?)"},
  };
  for (const auto& [name, pattern] : table)
    if (name == format) return "^" + pattern + "$";
  return {};
}

}  // namespace crumb::json

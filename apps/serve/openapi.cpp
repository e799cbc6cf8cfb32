#include "apps/serve/openapi.h"

#include <fmt/format.h>

#include "apps/serve/embedded.h"

namespace crumb::serve {
namespace {

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at))
    text.replace(at, from.size(), to);
}

}  // namespace

std::string number_pattern(int64_t last) {
  const std::string digits = std::to_string(last);
  const std::size_t n = digits.size();
  std::string pattern = "^(0|" + digits;
  if (n > 1) pattern += fmt::format("|[1-9][0-9]{{0,{}}}", n - 2);
  // As long as `last`, the same up to digit i, and less there.
  for (std::size_t i = 0; i < n; ++i) {
    const char low = i == 0 ? '1' : '0';
    if (digits[i] <= low) continue;
    pattern += fmt::format("|{}[{}-{}][0-9]{{{}}}", digits.substr(0, i), low,
                           static_cast<char>(digits[i] - 1), n - i - 1);
  }
  return pattern + ")$";
}

std::string openapi_text(const ServedModel& model) {
  std::string text(kOpenApi);
  const int64_t last = model.engine->config().vocab - 1;
  replace_all(text, "\"{{last_token}}\"", std::to_string(last));
  replace_all(text, "\"{{slots}}\"", std::to_string(model.slots));
  replace_all(text, "\"{{dim}}\"", std::to_string(model.engine->config().dim));
  replace_all(text, "{{token_pattern}}", number_pattern(last));
  return text;
}

}  // namespace crumb::serve

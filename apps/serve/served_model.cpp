#include "apps/serve/served_model.h"

#include <fmt/format.h>

#include "tokenizer/utf8.h"

namespace crumb::serve {

std::string token_text(const Engine& engine, int32_t id) {
  return tokenizer::replace_invalid_utf8(engine.tokenizer().bytes(id));
}

std::string token_name(const Engine& engine, int32_t id) {
  const std::string_view bytes = engine.tokenizer().bytes(id);
  if (token_text(engine, id) == bytes) return std::string(bytes);
  std::string name = "bytes:";
  for (const char c : bytes) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return name;
}

}  // namespace crumb::serve

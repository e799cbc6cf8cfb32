#include "apps/transcript.h"

#include "apps/output.h"
#include "models/errors.h"
#include "models/file_writer.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxBytes = 64 << 20;
constexpr int kMaxDepth = 64;

Json parse(const std::string& text, const std::string& path) {
  // The parser itself does not recurse, but destroying and walking a deep value does.
  const auto limit_depth = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth)
      throw FormatError("JSON nested too deeply (" + path + ": expected at most 64 levels)");
    return true;
  };
  try {
    return Json::parse(text, limit_depth);
  } catch (const Json::exception& e) {
    throw FormatError("invalid JSON (" + path + ": " + e.what() + ")");
  }
}

std::string field(const Json& message, const char* name, std::size_t index,
                  const std::string& path) {
  if (message.is_object() && message.contains(name) && message[name].is_string())
    return message[name].get<std::string>();
  throw FormatError(fmt::format("invalid transcript ({}: message {}: expected a text \"{}\")", path,
                                index, name));
}

}  // namespace

void save_transcript(const std::string& path, const std::string& model,
                     const std::vector<ChatMessage>& messages) {
  Json list = Json::array();
  for (const auto& message : messages)
    list.push_back({{"role", message.role}, {"content", message.content}});
  models::write_file(path, to_text({{"model", model}, {"messages", list}}));
}

std::vector<ChatMessage> load_transcript(const std::string& path) {
  Json json = parse(read_text(path, kMaxBytes), path);
  if (json.is_object() && json.contains("messages")) json = Json(json["messages"]);
  if (!json.is_array())
    throw FormatError("invalid transcript (" + path + ": expected an array \"messages\")");
  std::vector<ChatMessage> messages;
  for (std::size_t i = 0; i < json.size(); ++i) {
    ChatMessage message{field(json[i], "role", i, path), field(json[i], "content", i, path)};
    if (message.role != "system" && message.role != "user" && message.role != "assistant")
      throw FormatError(
          fmt::format("invalid transcript ({}: message {}: expected role system, user or "
                      "assistant, found '{}')",
                      path, i, message.role));
    messages.push_back(std::move(message));
  }
  return messages;
}

}  // namespace crumb::apps

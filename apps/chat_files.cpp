// /commands about files: what goes into a conversation and comes out of it.
#include <fmt/format.h>

#include "apps/chat_commands.h"
#include "apps/output.h"
#include "apps/transcript.h"
#include "engine/json_grammar.h"
#include "models/errors.h"
#include "models/file_writer.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxFileBytes = 16 << 20;
constexpr int64_t kMaxSchemaBytes = 1 << 20;

std::string need_file(const std::string& argument, const char* command) {
  if (argument.empty()) throw Error(ExitCode::kUsage, std::string(command) + " needs a file name");
  return argument;
}

// The conversation as a page to read: a heading for each speaker.
std::string markdown(const std::vector<ChatMessage>& messages) {
  std::string text;
  for (const auto& message : messages)
    text += fmt::format("## {}\n\n{}\n\n", message.role, message.content);
  return text;
}

}  // namespace

void save_command(ChatRoom& room, const std::string& argument) {
  save_transcript(need_file(argument, "/save"), room.engine->info().name, room.chat.messages());
  note("saved {} messages to {}\n", room.chat.messages().size(), argument);
}

void load_command(ChatRoom& room, const std::string& argument) {
  room.chat.messages() = load_transcript(need_file(argument, "/load"));
  note("loaded {} messages from {}\n", room.chat.messages().size(), argument);
}

void export_command(ChatRoom& room, const std::string& argument) {
  const std::size_t space = argument.find(' ');
  const std::string format = parse_choice(argument.substr(0, space), {"md", "json"}, "/export");
  const std::string file = space == std::string::npos ? "" : argument.substr(space + 1);
  if (format == "json") return save_command(room, file);
  models::write_file(need_file(file, "/export md"), markdown(room.chat.messages()));
  note("wrote {} messages to {}\n", room.chat.messages().size(), file);
}

void file_command(ChatRoom& room, const std::string& argument) {
  std::string text = read_text(need_file(argument, "/file"), kMaxFileBytes);
  if (text.ends_with('\n')) text.pop_back();
  if (text.empty()) throw Error(ExitCode::kUsage, "the file is empty (" + argument + ")");
  answer(room, text);
}

void image_command(ChatRoom&, const std::string&) {
  throw Error(ExitCode::kUsage, "no images yet (/image: this crumb runs text models alone)");
}

void schema_command(ChatRoom& room, const std::string& argument) {
  if (argument == "off") {
    room.options.grammar = nullptr;
    note("answers are free text\n");
    return;
  }
  const std::string text = read_text(need_file(argument, "/schema"), kMaxSchemaBytes);
  const Json schema = Json::parse(text, nullptr, false);
  if (schema.is_discarded())
    throw Error(ExitCode::kBadFile, "the schema is not valid JSON (" + argument + ")");
  try {
    room.options.grammar = JsonGrammar::from_schema(schema);
  } catch (const SchemaError& error) {
    throw Error(ExitCode::kBadFile, fmt::format("the schema cannot be kept to ({} at '{}': {})",
                                                argument, error.pointer(), error.what()));
  }
  note("answers are held to {}\n", argument);
}

}  // namespace crumb::apps

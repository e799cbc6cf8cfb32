#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "apps/chat_commands.h"
#include "apps/chat_room.h"
#include "apps/output.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

struct Command {
  std::string_view name, argument, help;
  void (*run)(ChatRoom& room, const std::string& argument);
};

void help(ChatRoom& room, const std::string& argument);

void leave(ChatRoom& room, const std::string&) { room.leaving = true; }

void clear(ChatRoom& room, const std::string&) {
  auto& messages = room.chat.messages();
  const bool system = !messages.empty() && messages.front().role == "system";
  messages.resize(system ? 1 : 0);
  note("conversation cleared{}\n", system ? ", the system message stays" : "");
}

void undo(ChatRoom& room, const std::string&) {
  take_last_turn(room);
  note("took the last turn back, {} messages left\n", room.chat.messages().size());
}

void retry(ChatRoom& room, const std::string&) {
  if (room.seed) ++*room.seed;  // the same seed would give the same answer
  const auto before = room.chat.messages();
  const std::string text = take_last_turn(room);
  room.chat.messages() = before;
  answer_instead(room, text);
}

void proceed(ChatRoom& room, const std::string&) { go_on(room); }

void set(ChatRoom& room, const std::string& argument) {
  const std::size_t space = argument.find(' ');
  const std::string key = argument.substr(0, space);
  const std::string value = space == std::string::npos ? "" : argument.substr(space + 1);
  const std::string what = "/set " + key;
  constexpr int64_t kMany = 1 << 30;
  GenerateOptions changed = room.options;
  auto& sampling = changed.sampling;
  const auto real = [&](double low, double high) {
    return static_cast<float>(parse_real(value, low, high, what));
  };
  if (key == "temp") {
    sampling.temperature = real(0, 100);
  } else if (key == "top_k") {
    sampling.top_k = parse_integer(value, 0, kMany, what);
  } else if (key == "top_p") {
    sampling.top_p = real(0, 1);
  } else if (key == "min_p") {
    sampling.min_p = real(0, 1);
  } else if (key == "repeat_penalty") {
    sampling.repeat_penalty = real(0.01, 100);
  } else if (key == "repeat_last_n") {
    sampling.repeat_last_n = parse_integer(value, -1, kMany, what);
  } else if (key == "predict") {
    changed.max_tokens = parse_integer(value, -1, kMany, what);
  } else if (key == "seed") {
    room.seed.reset();
    if (value != "random")
      room.seed =
          static_cast<uint64_t>(parse_integer(value, 0, std::numeric_limits<int64_t>::max(), what));
  } else {
    throw Error(ExitCode::kUsage, fmt::format("no setting '{}'", key),
                "settings: temp top_k top_p min_p repeat_penalty repeat_last_n predict seed");
  }
  validate(sampling);
  room.options = changed;
  note("{} = {}\n", key, value);
}

void system(ChatRoom& room, const std::string& argument) {
  auto& messages = room.chat.messages();
  if (!messages.empty() && messages.front().role == "system") messages.erase(messages.begin());
  if (!argument.empty()) messages.insert(messages.begin(), {"system", argument});
  note("{}\n", argument.empty() ? "system message removed" : "system message set");
}

void show_sampling(const ChatRoom& room) {
  const auto& s = room.options.sampling;
  note(
      "sampling temp {} · top_k {} · top_p {} · min_p {} · repeat_penalty {} over {} · predict {} "
      "· seed {}\n",
      s.temperature, s.top_k, s.top_p, s.min_p, s.repeat_penalty, s.repeat_last_n,
      room.options.max_tokens, room.seed ? std::to_string(*room.seed) : "random");
}

void stats(ChatRoom& room, const std::string&) {
  const ModelInfo& info = room.engine->info();
  const Session& session = room.chat.session();
  note("model    {} · {} · {:.2f} bpw · {}\n", one_line(info.name), info.weights, info.total_bpw,
       human_bytes(static_cast<double>(info.file_bytes)));
  note("context  {}/{} tokens · cache {}\n", session.position(), session.context(),
       human_bytes(static_cast<double>(session.kv_bytes())));
  const auto decoded = static_cast<double>(room.tokens - room.answers);
  note("answers  {} · {} tokens · {:.1f} tok/s\n", room.answers, room.tokens,
       room.decode_seconds > 0 && decoded > 0 ? decoded / room.decode_seconds : 0.0);
  note("overflow {}\n",
       room.drop_oldest ? "drop-oldest: old turns make room" : "error: a full context is an error");
  show_sampling(room);
}

void show(ChatRoom& room, const std::string& argument) {
  const std::string what =
      parse_choice(argument.empty() ? "info" : argument, {"info", "params", "template"}, "/show");
  if (what == "info") return stats(room, "");
  if (what == "params") return show_sampling(room);
  note("{}\n", room.engine->chat_template());
}

void tokens(ChatRoom& room, const std::string& argument) {
  const auto& tokenizer = room.engine->tokenizer();
  const auto ids = tokenizer.encode(argument, true);
  for (const int32_t id : ids)
    note("{} {}\n", id,
         Json(std::string(tokenizer.bytes(id)))
             .dump(-1, ' ', false, Json::error_handler_t::replace));
  note("{} tokens\n", ids.size());
}

constexpr Command kCommands[] = {
    {"help", "", "this list", help},
    {"clear", "", "forget the conversation (not the system message)", clear},
    {"undo", "", "take the last turn back", undo},
    {"retry", "", "answer the last message again", retry},
    {"continue", "", "go on with an answer that was stopped or cut", proceed},
    {"edit", "", "change the last message in $EDITOR, then answer it", edit_command},
    {"system", "TEXT", "set the system message; without TEXT remove it", system},
    {"set", "KEY VAL", "temp top_k top_p min_p repeat_penalty repeat_last_n predict seed", set},
    {"stats", "", "model, context, speed, settings", stats},
    {"context", "", "the same", stats},
    {"tokens", "TEXT", "how the tokenizer splits TEXT", tokens},
    {"show", "WHAT", "info, params or template", show},
    {"file", "FILE", "send the text of a file", file_command},
    {"schema", "FILE|off", "hold the answers to a JSON schema", schema_command},
    {"image", "FILE", "reserved: no images yet", image_command},
    {"model", "FILE", "go on with another model", model_command},
    {"bench", "", "how fast this model reads and writes here", bench_command},
    {"save", "FILE", "write the conversation as JSON", save_command},
    {"load", "FILE", "read it back", load_command},
    {"export", "md|json FILE", "write the conversation for others", export_command},
    {"bye", "", "leave (also /exit, /quit, Ctrl-D)", leave},
    {"exit", "", "", leave},
    {"quit", "", "", leave},
};

void help(ChatRoom&, const std::string&) {
  for (const auto& command : kCommands)
    if (!command.help.empty())
      note("  /{:<18} {}\n", fmt::format("{} {}", command.name, command.argument), command.help);
  note("  {:<19} {}\n", "//text", "send /text to the model");
  note("  {:<19} {}\n", "\"\"\"text\"\"\"",
       "a message of several lines; also Ctrl-J, a trailing \\, or pasting");
}

}  // namespace

std::string take_last_turn(ChatRoom& room) {
  auto& messages = room.chat.messages();
  for (std::size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role != "user") continue;
    std::string text = messages[i].content;
    messages.resize(i);
    return text;
  }
  throw Error(ExitCode::kUsage, "nothing to take back: no message was sent yet");
}

void answer_instead(ChatRoom& room, const std::string& text) {
  const auto before = room.chat.messages();
  take_last_turn(room);
  try {
    answer(room, text);
  } catch (...) {
    room.chat.messages() = before;
    throw;
  }
}

void run_command(ChatRoom& room, const std::string& line) {
  const std::size_t space = std::min(line.find_first_of(" \n"), line.size());
  const std::string name = line.substr(1, space - 1);
  std::string argument = line.substr(std::min(line.find_first_not_of(" \n", space), line.size()));
  while (argument.ends_with(' ')) argument.pop_back();
  for (const auto& command : kCommands)
    if (command.name == name) return command.run(room, argument);
  throw Error(ExitCode::kUsage, fmt::format("unknown command /{}", name),
              fmt::format("/help lists them; //{} sends it to the model", line.substr(1)));
}

}  // namespace crumb::apps

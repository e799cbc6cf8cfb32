// A conversation as the terminal sees it: answers drawn as they come, and the /commands.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/model_args.h"
#include "apps/signals.h"
#include "apps/terminal.h"
#include "engine/chat.h"

namespace crumb::apps {

struct ChatRoom {
  std::shared_ptr<const Engine> engine;
  Chat& chat;
  Signals& signals;
  GenerateOptions options;
  std::optional<uint64_t> seed;  // given by the user; else every answer draws its own
  Style style;
  bool quiet = false, leaving = false;
  bool drop_oldest = false;  // when the context is full; else that is an error
  int64_t answers = 0, tokens = 0, dropped_bytes = 0;
  double decode_seconds = 0;
  ModelArgs asked = {}, loaded = {};  // the model: as asked for, with what its load chose
  bool plain = false;                 // answers as they come: not wrapped, code not coloured
};

// Sends `text`, streams the answer to stdout and the speed line to stderr. SIGINT ends the answer,
// which stays in the conversation. When the context is full, the oldest turns make room and that is
// said (drop_oldest), or Error(kMemory) with a hint; the conversation is then as before.
void answer(ChatRoom& room, const std::string& text);

// Goes on with the last answer, in the same way. Error(kUsage) if the last message is none.
void go_on(ChatRoom& room);

// What stands before ">>> ": how much of the context is used, nothing before the first answer.
std::string context_meter(const ChatRoom& room);

// Runs "/name rest". Throws Error(kUsage) for an unknown name or a bad value.
void run_command(ChatRoom& room, const std::string& line);

}  // namespace crumb::apps

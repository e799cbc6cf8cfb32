// /commands about the model itself.
#include <algorithm>
#include <csignal>

#include "apps/bench_measure.h"
#include "apps/chat_commands.h"
#include "apps/output.h"
#include "models/errors.h"

namespace crumb::apps {

void model_command(ChatRoom& room, const std::string& argument) {
  if (argument.empty()) throw Error(ExitCode::kUsage, "/model needs a file name");
  ModelArgs asked = room.asked;
  asked.path = argument;
  ModelArgs loaded = asked;
  auto engine = load_engine(loaded);
  Chat chat(engine, session_options(loaded));
  chat.messages() = room.chat.messages();
  chat.render(false);  // a template that refuses the conversation does so now
  room.chat = std::move(chat);
  room.engine = std::move(engine);
  room.asked = std::move(asked);
  room.loaded = std::move(loaded);
  const ModelInfo& info = room.engine->info();
  note("model {} · {} · {} · ctx {}\n", one_line(info.name), info.weights,
       human_bytes(static_cast<double>(info.file_bytes)), room.chat.session().context());
}

// A session of its own: the conversation's cache stays.
void bench_command(ChatRoom& room, const std::string&) {
  constexpr int kRepetitions = 3;
  constexpr BenchTest kTests[] = {{128, 0, 0}, {0, 32, 0}};
  SessionOptions options = session_options(room.loaded);
  options.context = std::min<int64_t>(room.chat.session().context(), 160);
  const auto session = room.engine->make_session(options);
  try {
    for (BenchTest test : kTests) {
      test.prompt = std::min(test.prompt, session->context());
      test.generate = std::min(test.generate, session->context());
      const BenchRow row = measure(*session, *room.engine, test, kRepetitions, false, room.signals);
      note("{:<6} {:>8.1f} tok/s (median of {})\n", name_of(test), summarise(speeds(row)).median,
           kRepetitions);
    }
  } catch (const Stopped& stopped) {
    if (stopped.number != SIGINT) throw;
    room.signals.clear();
    note("stopped\n");
  }
}

}  // namespace crumb::apps

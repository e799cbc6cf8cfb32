#include "apps/chat_room.h"

#include "apps/output.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

constexpr double kWarnShare = 0.8;

void speed_line(ChatRoom& room, const GenerateResult& result) {
  const Session& session = room.chat.session();
  std::string line =
      fmt::format("[{} tok · first {:.2f} s · {:.1f} tok/s · ctx {}/{} · seed {}",
                  result.ids.size(), result.first_token_seconds, tokens_per_second(result),
                  session.position(), session.context(), room.options.sampling.seed);
  if (result.reason == FinishReason::kCancelled) line += " · stopped";
  if (result.reason == FinishReason::kLength) line += " · cut at the token limit";
  if (result.reason == FinishReason::kContext) line += " · cut: the context is full";
  note("  {}{}]{}\n", room.style.dim, line, room.style.reset);
}

void warnings(ChatRoom& room) {
  const Session& session = room.chat.session();
  const auto used =
      static_cast<double>(session.position()) / static_cast<double>(session.context());
  if (used >= kWarnShare)
    note(
        "crumb: warning: {:.0f} % of the context is used; /clear starts anew, /undo takes the last "
        "turn back\n",
        used * 100);
  const int64_t dropped = room.chat.dropped_bytes() - room.dropped_bytes;
  if (dropped > 0)
    note("crumb: warning: {} bytes dropped that the vocabulary cannot hold\n", dropped);
  room.dropped_bytes = room.chat.dropped_bytes();
}

}  // namespace

void answer(ChatRoom& room, const std::string& text) {
  room.options.sampling.seed = room.seed ? *room.seed : random_seed();
  room.options.on_prefill = [&room](int64_t, int64_t) { return room.signals.pending() == 0; };
  room.signals.clear();
  bool ends_line = true;
  GenerateResult result;
  try {
    result = room.chat.say(text, room.options, [&](std::string_view piece) {
      write_answer(piece);
      if (!piece.empty()) ends_line = piece.back() == '\n';
      return room.signals.pending() == 0;
    });
  } catch (const Error& e) {
    if (e.code() != ExitCode::kMemory || !e.hint().empty()) throw;
    throw Error(e.code(), e.what(),
                "/undo or /clear makes room, or start again with a larger --ctx-size");
  }
  if (!ends_line || result.text.empty()) write_stdout("\n");
  room.answers += 1;
  room.tokens += static_cast<int64_t>(result.ids.size());
  room.decode_seconds += result.decode_seconds;
  if (room.quiet) return;
  speed_line(room, result);
  warnings(room);
}

}  // namespace crumb::apps

#include "apps/chat_room.h"

#include <unistd.h>

#include <algorithm>

#include "apps/answer_printer.h"
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

// Takes the oldest question with its answer out of the messages, never a system message. False if
// there is none.
bool forget_oldest_turn(std::vector<ChatMessage>& messages) {
  const auto is_user = [](const ChatMessage& message) { return message.role == "user"; };
  const auto first = std::find_if(messages.begin(), messages.end(), is_user);
  if (first == messages.end()) return false;
  messages.erase(first, std::find_if(first + 1, messages.end(), is_user));
  return true;
}

// Whether `text` and, up to a quarter of the context, its answer fit behind the messages.
bool fits(ChatRoom& room, const std::string& text) {
  auto& messages = room.chat.messages();
  messages.push_back({"user", text});
  const int64_t tokens = std::ssize(room.chat.render(true));
  messages.pop_back();
  const int64_t context = room.chat.session().context(), quarter = context / 4;
  const int64_t most = room.options.max_tokens;
  return tokens + (most < 0 ? quarter : std::min(most, quarter)) <= context;
}

// Returns how many turns were forgotten.
int make_room(ChatRoom& room, const std::string& text) {
  int dropped = 0;
  while (!fits(room, text) && forget_oldest_turn(room.chat.messages())) ++dropped;
  return dropped;
}

using OnText = std::function<bool(std::string_view)>;

GenerateResult say_within_context(ChatRoom& room, const std::string& text, const OnText& on_text) {
  const std::vector<ChatMessage> before = room.chat.messages();
  const int dropped = room.drop_oldest ? make_room(room, text) : 0;
  try {
    auto result = room.chat.say(text, room.options, on_text);
    if (dropped > 0)
      note("crumb: warning: the context was full: the {} oldest turns were forgotten\n", dropped);
    return result;
  } catch (const Error& e) {
    room.chat.messages() = before;
    if (e.code() != ExitCode::kMemory || room.options.grammar != nullptr) throw;
    throw Error(e.code(), e.what(),
                "/undo or /clear makes room, or start again with a larger --ctx-size or "
                "--on-overflow drop-oldest");
  }
}

AnswerPrinter printer_of(const ChatRoom& room) {
  const bool terminal = is_terminal(STDOUT_FILENO) && !room.plain;
  return {terminal ? terminal_columns(STDOUT_FILENO) : 0,
          {write_answer, write_stdout, terminal ? room.style.code : std::string_view(),
           room.style.reset}};
}

// Draws what `write` writes.
void draw(ChatRoom& room, const std::function<GenerateResult(const OnText&)>& write) {
  room.options.sampling.seed = room.seed ? *room.seed : random_seed();
  room.options.on_prefill = [&room](int64_t, int64_t) { return room.signals.pending() == 0; };
  room.signals.clear();
  AnswerPrinter printer = printer_of(room);
  const auto result = write([&](std::string_view piece) {
    printer.push(piece);
    return room.signals.pending() == 0;
  });
  printer.finish();
  if (!printer.at_line_start() || result.text.empty()) write_stdout("\n");
  room.answers += 1;
  room.tokens += static_cast<int64_t>(result.ids.size());
  room.decode_seconds += result.decode_seconds;
  if (room.quiet) return;
  speed_line(room, result);
  warnings(room);
}

}  // namespace

void answer(ChatRoom& room, const std::string& text) {
  draw(room, [&](const OnText& on_text) { return say_within_context(room, text, on_text); });
}

void go_on(ChatRoom& room) {
  draw(room, [&](const OnText& on_text) { return room.chat.go_on(room.options, on_text); });
}

std::string context_meter(const ChatRoom& room) {
  const Session& session = room.chat.session();
  if (room.quiet || session.position() == 0 || room.chat.messages().empty()) return "";
  const auto used =
      static_cast<double>(session.position()) / static_cast<double>(session.context());
  return fmt::format("{:.0f}% ", 100 * used);
}

}  // namespace crumb::apps

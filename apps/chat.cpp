#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <utility>

#include "apps/build_info.h"
#include "apps/chat_room.h"
#include "apps/chat_sessions.h"
#include "apps/errors.h"
#include "apps/line_editor.h"
#include "apps/message_reader.h"
#include "apps/output.h"
#include "apps/transcript.h"
#include "apps/verbs.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

struct ChatArgs {
  ModelArgs model;
  SamplingArgs sampling;
  std::string system, color = "auto", load, resume, overflow = "error";
  bool no_history = false, quiet = false, plain = false;
};

bool parse(Context& context, ChatArgs& chat) {
  Args args(context, "Talk with a model. Answers go to stdout, everything else to stderr.");
  add_model(args, chat.model);
  add_session(args, chat.model);
  add_sampling(args, chat.sampling);
  args.text("--system", chat.system, "TEXT", "system message (also -sys)");
  args.text("--load", chat.load, "FILE", "start from a saved conversation");
  args.text("--resume", chat.resume, "NAME",
            "go on with a kept conversation: its name, or last (interactive ones are kept)");
  args.choice("--on-overflow", chat.overflow, {"error", "drop-oldest"},
              "when the context is full: refuse, or forget the oldest turns (default error)");
  args.choice("--color", chat.color, {"auto", "on", "off"},
              "colours on stderr (NO_COLOR, CLICOLOR_FORCE)");
  args.flag("--plain", chat.plain, "answers as they come: no wrapping, no colour for code");
  args.flag("--no-history", chat.no_history, "keep no history of lines and no conversation");
  args.flag("-q,--quiet", chat.quiet, "no banner, no speed line");
  args.example("crumb chat -m model.crumb -sys \"Answer in one sentence.\"");
  if (!args.parse()) return false;
  if (!chat.load.empty() && !chat.resume.empty())
    throw Error(ExitCode::kUsage, "two conversations given (--load and --resume: expected one)");
  return true;
}

// Keeps what was said on a terminal, where it was resumed from or under a new name.
void keep_session(const ChatRoom& room, std::string path) {
  if (room.answers == 0) return;
  if (path.empty()) path = new_session_path();
  if (path.empty()) return;
  save_transcript(path, room.engine->info().name, room.chat.messages());
  std::error_code error;
  std::filesystem::permissions(path, std::filesystem::perms(0600), error);
  if (!room.quiet)
    note("{}kept: go on with crumb chat --resume {}{}\n", room.style.dim,
         std::filesystem::path(path).stem().string(), room.style.reset);
}

void banner(const ChatRoom& room, const ModelArgs& model) {
  const Engine& engine = *room.engine;
  const ModelInfo& info = engine.info();
  const Session& session = room.chat.session();
  const auto& plan = engine.thread_plan();
  note("{}crumb {}{} · {} · {} ({:.2f} bpw, {}) · ctx {}\n", room.style.bold, kBuildInfo.version,
       room.style.reset, one_line(info.name), info.weights, info.total_bpw,
       human_bytes(static_cast<double>(info.file_bytes)), session.context());
  const std::string pinned =
      plan.pus.empty() ? "not pinned" : fmt::format("pinned to {}", fmt::join(plan.pus, ","));
  const double kv =
      static_cast<double>(session.kv_bytes()) / static_cast<double>(session.context());
  note("{}cpu: {} cores → {} threads, {} · kernels {} · KV {} {}/token{}\n", room.style.dim,
       plan.cores, plan.threads, pinned, engine.backend().name, model.kv, human_bytes(kv),
       room.style.reset);
  note("{}Type a message. /help for commands, Ctrl-C stops an answer, Ctrl-D leaves.{}\n\n",
       room.style.dim, room.style.reset);
}

void handle(ChatRoom& room, const std::string& text) {
  if (text.find_first_not_of(" \t\n") == std::string::npos) return;
  if (text.starts_with("//")) {
    answer(room, text.substr(1));
  } else if (text.starts_with('/')) {
    run_command(room, text);
  } else {
    answer(room, text);
  }
}

// A mistake ends a script, but not a conversation with a person.
bool survivable(const Failure& failure) {
  return failure.exit_code != static_cast<int>(ExitCode::kInternal) &&
         failure.exit_code != static_cast<int>(ExitCode::kNumeric) && failure.exit_code < 128 &&
         !failure.quiet;
}

void converse(ChatRoom& room, LineEditor& editor) {
  bool asked = false;  // Ctrl-C at an empty prompt was pressed just now
  while (!room.leaving) {
    std::string meter = context_meter(room);
    const Line message = read_message([&](std::string_view prompt) {
      const std::string shown = std::exchange(meter, {}) + std::string(prompt);
      return editor.read(shown);
    });
    if (message.kind == Line::Kind::kTerminated) throw Stopped{SIGTERM};
    if (message.kind == Line::Kind::kEnd) {
      if (editor.interactive()) note("\n");
      return;
    }
    if (message.kind == Line::Kind::kInterrupted) {
      if (!editor.interactive()) throw Stopped{SIGINT};
      if (!message.text.empty()) continue;
      if (asked) return;
      asked = true;
      note("Ctrl-C again or Ctrl-D leaves; during an answer Ctrl-C stops it.\n");
      continue;
    }
    asked = false;
    editor.remember(message.text);
    try {
      handle(room, message.text);
    } catch (...) {
      const Failure failure = describe(std::current_exception());
      if (!editor.interactive() || !survivable(failure)) throw;
      report(failure, false);
    }
    const int signal = room.signals.pending();
    if (signal == SIGTERM || (signal != 0 && !editor.interactive())) throw Stopped{signal};
  }
}

}  // namespace

int chat(Context& context) {
  ChatArgs given;
  if (!parse(context, given)) return 0;
  context.signals.watch();
  const ModelArgs asked = given.model;
  const auto engine = load_engine(given.model);
  Chat conversation(engine, session_options(given.model));
  if (!given.resume.empty()) given.load = given.resume = find_session(given.resume);
  if (!given.load.empty()) conversation.messages() = load_transcript(given.load);
  ChatRoom room{engine,
                conversation,
                context.signals,
                generate_options(given.sampling, *engine),
                given.sampling.seed,
                make_style(given.color),
                given.quiet};
  room.drop_oldest = given.overflow == "drop-oldest";
  room.asked = asked;
  room.loaded = given.model;
  room.plain = given.plain;
  if (!given.system.empty())
    conversation.messages().insert(conversation.messages().begin(), {"system", given.system});
  LineEditor editor(context.signals, given.no_history ? "" : history_path());
  if (!given.quiet) banner(room, given.model);
  if (!given.quiet && !given.load.empty())
    note("{} messages from {}\n", conversation.messages().size(), given.load);
  converse(room, editor);
  if (editor.interactive() && !given.no_history) keep_session(room, given.resume);
  return 0;
}

}  // namespace crumb::apps

// One line from the user: libedit with history on a terminal, plain reading elsewhere.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "apps/signals.h"

namespace crumb::apps {

struct Line {
  enum class Kind {
    kText,         // `text` without its end of line; may hold line feeds (paste, Ctrl-J)
    kEnd,          // Ctrl-D or end of file
    kInterrupted,  // Ctrl-C; `text` is what was typed so far
    kTerminated,   // SIGTERM
  };
  Kind kind = Kind::kEnd;
  std::string text;
};

class LineEditor {
 public:
  // `history_file` empty: nothing is loaded or saved. Editing needs a terminal on stdin and stderr.
  LineEditor(Signals& signals, std::string history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  bool interactive() const;
  // Signals must be watched. The prompt is drawn only if interactive. Throws IoError.
  Line read(std::string_view prompt);
  // Adds a message to the history and its file (mode 0600), unless it starts with a space.
  void remember(const std::string& text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// $XDG_STATE_HOME/crumb/history, its folder made if missing (mode 0700). Empty if there is no home
// or the folder cannot be made.
std::string history_path();

}  // namespace crumb::apps

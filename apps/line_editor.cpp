#include "apps/line_editor.h"

#include <fcntl.h>
#include <histedit.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <deque>
#include <filesystem>

#include "apps/output.h"
#include "apps/terminal.h"
#include "models/errors.h"
#include "tokenizer/utf8.h"

namespace crumb::apps {
namespace {

constexpr int kHistoryLines = 1000;
constexpr off_t kHistoryFileBytes = 1
                                    << 20;  // above this the file is rewritten with the last lines
constexpr std::string_view kPasteBegin = "\033[200~";
constexpr std::string_view kPasteEnd = "\033[201~";
constexpr int kEscapeWaitMs = 30;  // the rest of an escape sequence comes at once

}  // namespace

struct LineEditor::State {
  explicit State(Signals& s) : signals(s) {}

  Signals& signals;
  std::string history_file, prompt;
  bool interactive = false;
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::deque<unsigned char> bytes;  // read ahead of what libedit has seen
  std::string plain;                // the same without a terminal
  bool pasting = false, plain_end = false;
  int failure = 0;  // errno of a failed read
  Line::Kind stop = Line::Kind::kEnd;
  std::string typed;  // the line when a signal came

  // Waits for a byte or a signal. 1: a byte is in `bytes`; 0: end of input; -1: signal; -2:
  // timeout.
  int fill(int timeout_ms);
  int next_char(wchar_t* out);
  bool take_paste_mark(std::string_view mark);
  Line read_plain();
  void open_editor();
  void save(const std::string& text);
};

int LineEditor::State::fill(int timeout_ms) {
  for (;;) {
    pollfd waiting[2] = {{STDIN_FILENO, POLLIN, 0}, {signals.descriptor(), POLLIN, 0}};
    const int n = poll(waiting, 2, timeout_ms);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) return -2;
    if (const int signal = signals.pending(); signal != 0) {
      stop = signal == SIGTERM ? Line::Kind::kTerminated : Line::Kind::kInterrupted;
      return -1;
    }
    if (waiting[0].revents == 0) continue;
    unsigned char block[4096];
    const ssize_t got = ::read(STDIN_FILENO, block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    // Not thrown here: libedit's C frames may lie between this and read(). EIO is a terminal gone.
    if (got < 0 && errno != EIO) failure = errno;
    if (got <= 0) return 0;
    bytes.insert(bytes.end(), block, block + got);
    return 1;
  }
}

// True, and the mark taken, if the bytes at hand are `mark`; waits shortly for the rest of it.
bool LineEditor::State::take_paste_mark(std::string_view mark) {
  for (std::size_t i = 0; i < mark.size(); ++i) {
    if (i >= bytes.size() && fill(kEscapeWaitMs) != 1) return false;
    if (bytes[i] != static_cast<unsigned char>(mark[i])) return false;
  }
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(mark.size()));
  return true;
}

// libedit's source of characters: decodes UTF-8 itself (whatever the locale), recognises pasted
// text, in which an end of line is a character of the message and not its end.
int LineEditor::State::next_char(wchar_t* out) {
  for (;;) {
    if (bytes.empty()) {
      const int filled = fill(-1);
      if (filled == 0) return 0;
      if (filled < 0) return -1;
    }
    if (bytes.front() == 0x1b && take_paste_mark(pasting ? kPasteEnd : kPasteBegin)) {
      pasting = !pasting;
      continue;
    }
    std::string head;
    const unsigned char lead = bytes.front();
    const std::size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    while (bytes.size() < length && fill(kEscapeWaitMs) == 1) {
    }
    for (std::size_t i = 0; i < length && i < bytes.size(); ++i)
      head += static_cast<char>(bytes[i]);
    const auto point = tokenizer::code_point_at(head, 0);
    bytes.erase(bytes.begin(), bytes.begin() + point.length);
    uint32_t value = point.value <= 0x10ffff ? point.value : 0xfffd;
    if (pasting && value == '\r') value = '\n';
    if (pasting && value < 0x20 && value != '\n' && value != '\t') continue;
    *out = static_cast<wchar_t>(value);
    return 1;
  }
}

Line LineEditor::State::read_plain() {
  for (;;) {
    const std::size_t end = plain.find('\n');
    if (end != std::string::npos || (plain_end && !plain.empty())) {
      Line line{Line::Kind::kText, plain.substr(0, end)};
      plain.erase(0, end == std::string::npos ? end : end + 1);
      if (line.text.ends_with('\r')) line.text.pop_back();
      return line;
    }
    if (plain_end) return {Line::Kind::kEnd, {}};
    const int filled = fill(-1);
    if (filled < 0) return {stop, plain};
    plain_end = filled == 0;
    if (failure != 0)
      throw IoError("cannot read standard input: " + std::string(strerror(failure)));
    plain.append(bytes.begin(), bytes.end());
    bytes.clear();
  }
}

void LineEditor::State::open_editor() {
  // libedit draws wide characters, so it needs a locale that has them; nothing else of it is
  // wanted.
  if (std::setlocale(LC_CTYPE, "C.UTF-8") == nullptr) std::setlocale(LC_CTYPE, "");
  editor = el_init("crumb", stdin, stderr, stderr);
  history = history_init();
  if (editor == nullptr || history == nullptr) throw std::bad_alloc();
  HistEvent event;
  ::history(history, &event, H_SETSIZE, kHistoryLines);
  ::history(history, &event, H_SETUNIQUE, 1);
  el_set(editor, EL_CLIENTDATA, this);
  el_set(editor, EL_SIGNAL, 1);  // window size and job control; SIGINT never reaches it
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_HIST, ::history, history);
  el_set(
      editor, EL_PROMPT, +[](EditLine* el) -> char* {
        State* state = nullptr;
        el_get(el, EL_CLIENTDATA, &state);
        return state->prompt.data();
      });
  el_set(
      editor, EL_GETCFN, +[](EditLine* el, wchar_t* out) -> int {
        State* state = nullptr;
        el_get(el, EL_CLIENTDATA, &state);
        const int n = state->next_char(out);
        if (n < 0) {
          const LineInfo* line = el_line(el);
          state->typed.assign(line->buffer, line->lastchar);
        }
        return n;
      });
  el_set(
      editor, EL_ADDFN, "crumb-insert", "insert the character itself",
      +[](EditLine* el, int ch) -> unsigned char {
        const char text[2] = {static_cast<char>(ch), 0};
        return el_insertstr(el, text) == -1 ? CC_ERROR : CC_REFRESH;
      });
  el_set(editor, EL_BIND, "^J", "crumb-insert", nullptr);
  el_set(editor, EL_BIND, "^I", "crumb-insert", nullptr);
  el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  // Enter stays a carriage return, also when typed ahead: else it could not be told from Ctrl-J.
  el_set(editor, EL_SETTY, "-d", "-icrnl", nullptr);
  el_set(editor, EL_SETTY, "-x", "-icrnl", nullptr);
  if (history_file.empty()) return;
  ::history(history, &event, H_LOAD, history_file.c_str());
  struct stat info {};
  if (stat(history_file.c_str(), &info) == 0 && info.st_size > kHistoryFileBytes)
    ::history(history, &event, H_SAVE, history_file.c_str());
}

void LineEditor::State::save(const std::string& text) {
  HistEvent event;
  ::history(history, &event, H_ENTER, text.c_str());
  if (history_file.empty()) return;
  // Appended, so that two conversations at once do not lose each other's lines.
  const int fd = open(history_file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  fchmod(fd, 0600);
  lseek(fd, 0, SEEK_END);
  FILE* file = fdopen(fd, "a");
  if (file == nullptr) {
    close(fd);
    return;
  }
  ::history(history, &event, H_NSAVE_FP, std::size_t{1}, file);
  std::fclose(file);
}

LineEditor::LineEditor(Signals& signals, std::string history_file)
    : state_(std::make_unique<State>(signals)) {
  state_->history_file = std::move(history_file);
  const char* term = std::getenv("TERM");
  state_->interactive = is_terminal(STDIN_FILENO) && is_terminal(STDERR_FILENO);
  if (state_->interactive && term != nullptr && *term != '\0' && std::string_view(term) != "dumb")
    state_->open_editor();
}

LineEditor::~LineEditor() {
  if (state_->history != nullptr) history_end(state_->history);
  if (state_->editor != nullptr) el_end(state_->editor);
}

bool LineEditor::interactive() const { return state_->interactive; }

Line LineEditor::read(std::string_view prompt) {
  state_->prompt = prompt;
  state_->signals.clear();
  if (state_->editor == nullptr) {
    if (state_->interactive) write_stderr(prompt);
    return state_->read_plain();
  }
  write_stderr("\033[?2004h");  // pasted text comes between marks
  int count = 0;
  state_->stop = Line::Kind::kEnd;
  const char* text = el_gets(state_->editor, &count);
  write_stderr("\033[?2004l");
  if (state_->failure != 0)
    throw IoError("cannot read standard input: " + std::string(strerror(state_->failure)));
  if (text == nullptr || count <= 0) {
    if (state_->stop != Line::Kind::kEnd) {
      write_stderr("\n");
      return {state_->stop, state_->typed};
    }
    return {Line::Kind::kEnd, {}};
  }
  std::string line(text, static_cast<std::size_t>(count));
  while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
  return {Line::Kind::kText, line};
}

void LineEditor::remember(const std::string& text) {
  if (state_->editor == nullptr || text.empty() || text.starts_with(' ')) return;
  state_->save(text);
}

std::string history_path() {
  namespace fs = std::filesystem;
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder;
  if (state != nullptr && *state == '/') {
    folder = state;
  } else if (home != nullptr && *home == '/') {
    folder = fs::path(home) / ".local/state";
  } else {
    return {};
  }
  folder /= "crumb";
  std::error_code error;
  if (fs::create_directories(folder, error)) fs::permissions(folder, fs::perms::owner_all, error);
  return fs::is_directory(folder, error) ? (folder / "history").string() : std::string();
}

}  // namespace crumb::apps

// /edit: the last message in the user's editor.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "apps/chat_commands.h"
#include "apps/output.h"
#include "models/errors.h"
#include "models/file_writer.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxBytes = 16 << 20;

// A folder that only this user can look into, gone with its end.
class PrivateFolder {
 public:
  PrivateFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "crumb-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
      throw IoError("cannot make a folder for the editor (" + name + ": " +
                    std::system_category().message(errno) + ")");
    path_ = name;
  }
  ~PrivateFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string editor_of_user() {
  for (const char* name : {"VISUAL", "EDITOR"})
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  return "vi";
}

// Runs the editor, which may be a command with options, as a shell would; its signals are as they
// were before this program blocked them.
void run_editor(const std::string& editor, const std::string& path) {
  const std::string command = editor + " \"$1\"";
  std::string shell = "sh", option = "-c", line = command, name = "sh", file = path;
  char* arguments[] = {shell.data(), option.data(), line.data(), name.data(), file.data(), nullptr};
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = 0;
  const int failed = posix_spawn(&child, "/bin/sh", nullptr, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0)
    throw IoError("cannot start the editor (" + editor + ": " +
                  std::system_category().message(failed) + ")");
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw Error(ExitCode::kIo, "the editor failed, nothing was sent (" + editor + ")",
                "VISUAL or EDITOR names the one you want");
}

}  // namespace

void edit_command(ChatRoom& room, const std::string&) {
  const auto before = room.chat.messages();
  const std::string text = take_last_turn(room);
  room.chat.messages() = before;
  const PrivateFolder folder;
  const std::string path = folder.file("message.md");
  models::write_file(path, text);
  run_editor(editor_of_user(), path);
  room.signals.clear();  // what was pressed in the editor
  std::string changed = read_text(path, kMaxBytes);
  while (changed.ends_with('\n')) changed.pop_back();
  if (changed == text || changed.find_first_not_of(" \t\n") == std::string::npos) {
    note("unchanged, nothing was sent\n");
    return;
  }
  answer_instead(room, changed);
}

}  // namespace crumb::apps

#include "apps/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace crumb::apps {
namespace {

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool wants_color(const std::string& choice) {
  if (choice != "auto") return choice == "on";
  if (is_set("NO_COLOR")) return false;
  if (is_set("CLICOLOR_FORCE") && std::string(std::getenv("CLICOLOR_FORCE")) != "0") return true;
  if (!is_set("TERM") || std::string(std::getenv("TERM")) == "dumb") return false;
  return is_terminal(STDERR_FILENO);
}

}  // namespace

bool is_terminal(int fd) { return isatty(fd) == 1; }

int terminal_columns(int fd) {
  if (is_set("COLUMNS")) {
    const int columns = std::atoi(std::getenv("COLUMNS"));
    if (columns >= 20 && columns <= 1000) return columns;
  }
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

Style make_style(const std::string& choice) {
  if (!wants_color(choice)) return {};
  return {"\033[2m", "\033[1m", "\033[31m", "\033[36m", "\033[0m"};
}

}  // namespace crumb::apps

// What the terminal can do, and what the user wants of it.
#pragma once
#include <string>
#include <string_view>

namespace crumb::apps {

bool is_terminal(int fd);
int terminal_columns(int fd);  // COLUMNS, else the window's width, else 80

// Escape sequences for stderr, all empty when colour is off.
struct Style {
  std::string_view dim, bold, red, code, reset;
};
// `choice` is "auto", "on" or "off". auto: off with NO_COLOR, on with CLICOLOR_FORCE, off with
// TERM=dumb, else whether stderr is a terminal.
Style make_style(const std::string& choice);

}  // namespace crumb::apps

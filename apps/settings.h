// Values of options that the command line did not give: the environment, then config.toml.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/option_table.h"

namespace crumb::apps {

struct Setting {
  std::vector<std::string> values;  // one, or many for an option that may be repeated
  std::string origin;               // "CRUMB_THREADS" or "/etc/crumb/config.toml:3"
};

// config.toml: keys are options without dashes (`_` for `-` is fine too). A key above all tables
// is meant for every verb that has such an option, a key in [run] for `crumb run` alone. The
// user's file goes before the machine's, a verb's table before the keys above it.
class Settings {
 public:
  // `table` gives every verb: a key that no verb has is a mistake.
  Settings(std::vector<std::string> files, std::function<std::vector<Command>()> table);
  ~Settings();

  // The value of `option` for `verb`: CRUMB_CTX_SIZE for --ctx-size, else the files in order.
  // A flag's value is "true" or "false". The files are read when this is first called, those that
  // do not exist skipped. Throws Error(kUsage) naming variable or file and line.
  std::optional<Setting> find(std::string_view verb, const Option& option);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// $XDG_CONFIG_HOME/crumb/config.toml (~/.config without it), /etc/crumb/config.toml.
std::vector<std::string> config_files();

// "ctx-size" -> "CRUMB_CTX_SIZE".
std::string variable_name(std::string_view long_name);

// The value of a variable, nothing if unset or empty.
std::optional<std::string> environment(const char* name);

}  // namespace crumb::apps

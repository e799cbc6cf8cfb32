#include "apps/settings.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "apps/output.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxBytes = 1 << 20;

struct File {
  std::string path;
  toml::table values;
};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(ExitCode::kUsage, fmt::format("{} ({})", one_line(what), one_line(where)),
              "`crumb config` shows every setting and where it comes from");
}

std::string dashed(std::string_view key) {
  std::string name(key);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string place(const File& file, const toml::node& node) {
  return fmt::format("{}:{}", file.path, node.source().begin.line);
}

std::optional<std::string> scalar(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* integer = node.as_integer()) return std::to_string(integer->get());
  if (const auto* real = node.as_floating_point()) return fmt::format("{}", real->get());
  if (const auto* truth = node.as_boolean()) return truth->get() ? "true" : "false";
  return std::nullopt;
}

Setting setting_of(const File& file, const toml::node& node, const Option& option) {
  Setting setting{{}, place(file, node)};
  const auto* array = node.as_array();
  if (array != nullptr && option.repeated)
    for (const auto& item : *array)
      if (const auto value = scalar(item))
        setting.values.push_back(*value);
      else
        refuse(setting.origin, option.long_name() + ": expected texts or numbers");
  else if (const auto value = scalar(node))
    setting.values.push_back(*value);
  else
    refuse(setting.origin, option.long_name() + ": expected one text, number or truth value");
  if (option.flag && !node.is_boolean())
    refuse(setting.origin, option.long_name() + ": expected true or false");
  return setting;
}

const toml::node* find_key(const toml::table& table, const std::string& name) {
  for (const auto& [key, node] : table)
    if (!node.is_table() && dashed(key.str()) == name) return &node;
  return nullptr;
}

// Every key must be some option's, every table a verb.
void check_names(const File& file, const std::vector<Command>& table) {
  std::set<std::string> all, verbs;
  std::set<std::pair<std::string, std::string>> of_verb;
  for (const auto& command : table) {
    verbs.insert(command.verb());
    for (const auto& option : command.options) {
      all.insert(option.long_name());
      of_verb.emplace(command.verb(), option.long_name());
    }
  }
  all.erase("");
  for (const auto& [key, node] : file.values) {
    const std::string name(key.str());
    const auto* inner = node.as_table();
    if (inner == nullptr) {
      if (!all.contains(dashed(name)))
        refuse(place(file, node), fmt::format("no verb has an option '{}'", name));
      continue;
    }
    if (!verbs.contains(name)) refuse(place(file, node), fmt::format("no verb '{}'", name));
    for (const auto& [inner_key, value] : *inner)
      if (value.is_table() || !of_verb.contains({name, dashed(inner_key.str())}))
        refuse(place(file, value),
               fmt::format("`crumb {}` has no option '{}'", name, inner_key.str()));
  }
}

File read_file(const std::string& path) {
  try {
    return {path, toml::parse(read_text(path, kMaxBytes), path)};
  } catch (const toml::parse_error& error) {
    refuse(fmt::format("{}:{}", path, error.source().begin.line),
           "not TOML: " + std::string(error.description()));
  }
}

std::string truth(const std::string& text, const std::string& variable) {
  for (const char* yes : {"1", "true", "on"})
    if (text == yes) return "true";
  for (const char* no : {"0", "false", "off"})
    if (text == no) return "false";
  refuse(variable, fmt::format("expected 1, true, on, 0, false or off, found '{}'", text));
}

}  // namespace

struct Settings::State {
  std::vector<std::string> paths;
  std::function<std::vector<Command>()> table;
  bool read = false;
  std::vector<File> files;

  void read_files() {
    read = true;
    for (const auto& path : paths) {
      std::error_code error;
      if (!std::filesystem::exists(path, error)) continue;
      files.push_back(read_file(path));
      check_names(files.back(), table());
    }
  }
};

Settings::Settings(std::vector<std::string> files, std::function<std::vector<Command>()> table)
    : state_(std::make_unique<State>()) {
  state_->paths = std::move(files);
  state_->table = std::move(table);
}

Settings::~Settings() = default;

std::optional<Setting> Settings::find(std::string_view verb, const Option& option) {
  if (!state_->read) state_->read_files();
  const std::string name = option.long_name();
  if (name.empty()) return std::nullopt;
  const std::string variable = variable_name(name);
  if (const auto value = environment(variable.c_str()))
    return Setting{{option.flag ? truth(*value, variable) : *value}, variable};
  for (const File& file : state_->files) {
    const toml::node* node = nullptr;
    if (const auto* inner = file.values[verb].as_table()) node = find_key(*inner, name);
    if (node == nullptr) node = find_key(file.values, name);
    if (node != nullptr) return setting_of(file, *node, option);
  }
  return std::nullopt;
}

std::vector<std::string> config_files() {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  const auto config = environment("XDG_CONFIG_HOME");
  const auto home = environment("HOME");
  // The XDG specification: a path that is not absolute is to be ignored.
  if (config && config->starts_with('/'))
    files.push_back((fs::path(*config) / "crumb/config.toml").string());
  else if (home && home->starts_with('/'))
    files.push_back((fs::path(*home) / ".config/crumb/config.toml").string());
  files.emplace_back("/etc/crumb/config.toml");
  return files;
}

std::string variable_name(std::string_view long_name) {
  std::string name = "CRUMB_";
  for (const char c : long_name)
    name += c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return name;
}

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

}  // namespace crumb::apps

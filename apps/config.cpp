#include <filesystem>

#include "apps/args.h"
#include "apps/output.h"
#include "apps/settings.h"
#include "apps/verbs.h"

namespace crumb::apps {
namespace {

struct Found {
  std::string verb, option, variable;
  Setting setting;
};

std::vector<Found> everything_set(const std::string& only) {
  std::vector<Found> found;
  const auto table = option_table();
  Settings settings(config_files(), [&] { return table; });
  std::string last;
  for (const auto& command : table) {
    if (!only.empty() && command.verb() != only) continue;
    for (const auto& option : command.options) {
      const auto setting = settings.find(command.verb(), option);
      if (!setting) continue;
      const std::string name = option.long_name();
      const bool again = std::any_of(found.begin(), found.end(), [&](const Found& f) {
        return f.verb == command.verb() && f.option == name;
      });
      if (!again) found.push_back({command.verb(), name, variable_name(name), *setting});
    }
  }
  return found;
}

}  // namespace

int config(Context& context) {
  std::string verb;
  bool json = false;
  Args args(context,
            "Settings of the environment and of config.toml, and where each comes from. Options on "
            "the command line go before the environment, that before the files.");
  args.positional("VERB", verb, false, "only those of this verb");
  args.flag("--json", json, "one JSON object");
  if (!args.parse()) return 0;
  if (!verb.empty()) {
    std::vector<std::string> known;
    for (const Verb& each : verbs()) known.emplace_back(each.name);
    parse_choice(verb, known, "VERB");
  }
  const auto found = everything_set(verb);
  Json list = Json::array(), files = Json::array();
  for (const auto& path : config_files()) {
    std::error_code error;
    const bool there = std::filesystem::exists(path, error);
    files.push_back({{"path", path}, {"exists", there}});
    if (!json) put("{} {}\n", one_line(path), there ? "(read)" : "(not there)");
  }
  for (const auto& [name, option, variable, setting] : found) {
    list.push_back({{"verb", name},
                    {"option", option},
                    {"variable", variable},
                    {"values", setting.values},
                    {"origin", setting.origin}});
    if (!json)
      put("{:<9} --{} = {}  ({})\n", name, option,
          one_line(fmt::format("{}", fmt::join(setting.values, ", "))), one_line(setting.origin));
  }
  if (json)
    write_stdout(to_text({{"schema", "crumb.config/1"}, {"files", files}, {"settings", list}}));
  return 0;
}

}  // namespace crumb::apps

#include "apps/option_table.h"

#include <algorithm>

namespace crumb::apps {
namespace {

bool same(const Option& a, const Option& b) { return a.names == b.names && a.help == b.help; }

}  // namespace

std::string Option::long_name() const {
  if (positional) return {};
  for (const auto& name : names)
    if (name.starts_with("--")) return name.substr(2);
  return {};
}

std::string Command::path() const { return program.substr(program.find(' ') + 1); }

std::string Command::verb() const {
  const std::string whole = path();
  return whole.substr(0, whole.find(' '));
}

std::vector<CommandGroup> same_options(const std::vector<Command>& table) {
  std::vector<CommandGroup> groups;
  for (const auto& command : table) {
    const auto alike = std::find_if(groups.begin(), groups.end(), [&](const CommandGroup& group) {
      const Command& first = *group.commands.front();
      return first.verb() == command.verb() &&
             std::equal(first.options.begin(), first.options.end(), command.options.begin(),
                        command.options.end(), same);
    });
    if (alike == groups.end())
      groups.push_back({{&command}});
    else
      alike->commands.push_back(&command);
  }
  return groups;
}

}  // namespace crumb::apps

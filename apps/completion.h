// Completion scripts for three shells, out of the table of options.
#pragma once
#include <string>
#include <vector>

#include "apps/option_table.h"

namespace crumb::apps {

// `verbs`: names and summaries of what may follow "crumb".
using Summaries = std::vector<std::pair<std::string, std::string>>;
std::string bash_completion(const std::vector<Command>& table, const Summaries& verbs);
std::string zsh_completion(const std::vector<Command>& table, const Summaries& verbs);
std::string fish_completion(const std::vector<Command>& table, const Summaries& verbs);

}  // namespace crumb::apps

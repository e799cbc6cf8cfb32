// The options of all verbs as data: what --help shows, man pages, completions and settings share.
#pragma once
#include <string>
#include <vector>

namespace crumb::apps {

struct Option {
  std::vector<std::string> names = {};  // "-m", "--model"; of a positional its one name
  std::string value_name = {};          // "FILE", "N"; empty for a flag or a positional
  std::string help = {};
  std::vector<std::string> choices = {};  // if only these values are allowed
  bool flag = false, repeated = false, positional = false, required = false;

  // Without dashes: "model". Empty for a positional.
  std::string long_name() const;
};

struct Command {
  std::string program;  // "crumb run", "crumb eval ppl"
  std::string summary;
  std::string examples;  // a line each, indented
  std::vector<Option> options;

  // Without "crumb ": "run", "eval ppl".
  std::string path() const;
  // "run", "eval".
  std::string verb() const;
};

// Commands that have the very same options, as the tasks of `eval` do.
struct CommandGroup {
  std::vector<const Command*> commands;  // at least one
};
std::vector<CommandGroup> same_options(const std::vector<Command>& table);

}  // namespace crumb::apps

#include <fmt/format.h>

#include <algorithm>

#include "apps/completion.h"

namespace crumb::apps {
namespace {

bool takes_file(const Option& option) {
  for (const char* name : {"FILE", "DIR", "PREFIX"})
    if (option.value_name == name) return true;
  return option.positional;
}

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

// 'text' for a POSIX shell.
std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// What `command:option` may be in bash's and zsh's case statements.
std::string patterns(const CommandGroup& group, const Option& option) {
  std::vector<std::string> all;
  for (const Command* command : group.commands)
    for (const auto& name : option.names) all.push_back(in_quotes(command->path() + ":" + name));
  return joined(all, "|");
}

std::string paths(const CommandGroup& group) {
  std::vector<std::string> all;
  for (const Command* command : group.commands) all.push_back(in_quotes(command->path()));
  return joined(all, "|");
}

std::vector<std::string> option_names(const Command& command) {
  std::vector<std::string> names;
  for (const auto& option : command.options)
    if (!option.positional) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

// Second words of verbs that have them: the measures of `eval`.
std::vector<std::string> second_words(const std::vector<Command>& table, const std::string& verb) {
  std::vector<std::string> words;
  for (const auto& command : table)
    if (command.verb() == verb && command.path() != verb)
      words.push_back(command.path().substr(verb.size() + 1));
  return words;
}

constexpr std::string_view kBashHead =
    R"sh(# bash completion of crumb, written by `crumb completion bash`
_crumb_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }
_crumb_files() { compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }
_crumb() {
  local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
  COMPREPLY=()
  if [ "$cur" = = ]; then cur=; elif [ "$before" = = ]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi
)sh";

}  // namespace

std::string bash_completion(const std::vector<Command>& table, const Summaries& verbs) {
  std::vector<std::string> names;
  for (const auto& verb : verbs) names.push_back(verb.first);
  std::string out(kBashHead);
  out +=
      fmt::format("  case \"$COMP_CWORD:$cur\" in 1:-*) ;; 1:*) _crumb_words {}; return ;; esac\n",
                  in_quotes(joined(names, " ") + " --help --version"));
  out += "  case \"$command\" in -*) command=chat ;; esac\n";
  for (const auto& name : names)
    if (const auto words = second_words(table, name); !words.empty())
      out += fmt::format(
          "  if [ \"$command\" = {} ]; then\n"
          "    if [ \"$COMP_CWORD\" -eq 2 ]; then _crumb_words {}; return; fi\n"
          "    command=\"{} ${{COMP_WORDS[2]}}\"\n  fi\n",
          name, in_quotes(joined(words, " ") + " --help"), name);
  out += "  case \"$command:$before\" in\n";
  const auto groups = same_options(table);
  for (const auto& group : groups)
    for (const auto& option : group.commands.front()->options) {
      if (option.flag || option.positional) continue;
      const std::string action = !option.choices.empty()
                                     ? "_crumb_words " + in_quotes(joined(option.choices, " "))
                                 : takes_file(option) ? "_crumb_files"
                                                      : ":";
      out += fmt::format("    {}) {}; return ;;\n", patterns(group, option), action);
    }
  out +=
      "  esac\n  case \"$cur\" in -*) ;; *) _crumb_files; return ;; esac\n  case \"$command\" in\n";
  for (const auto& group : groups)
    out += fmt::format("    {}) _crumb_words {} ;;\n", paths(group),
                       in_quotes(joined(option_names(*group.commands.front()), " ")));
  return out + "  esac\n}\ncomplete -F _crumb crumb\n";
}

namespace {

// One argument of zsh's _arguments: '(-m --model)'{-m,--model}'[help]:FILE:_files'.
std::string zsh_argument(const Option& option) {
  if (option.positional) return in_quotes("*:" + option.names.front() + ":_files");
  std::string help;
  for (const char c : option.help) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') help += '\\';
    help += c;
  }
  std::string value;
  if (!option.flag) {
    value = ":" + (option.choices.empty() ? option.value_name : std::string("value")) + ":";
    if (!option.choices.empty())
      value += "(" + joined(option.choices, " ") + ")";
    else if (takes_file(option))
      value += "_files";
  }
  const std::string exclude = option.repeated ? "*" : "(" + joined(option.names, " ") + ")";
  const std::string names =
      option.names.size() == 1 ? option.names.front() : "{" + joined(option.names, ",") + "}";
  return in_quotes(exclude) + names + in_quotes("[" + help + "]" + value);
}

}  // namespace

std::string zsh_completion(const std::vector<Command>& table, const Summaries& verbs) {
  std::string out =
      "#compdef crumb\n# zsh completion of crumb, written by `crumb completion zsh`\n"
      "_crumb() {\n  local -a verbs=(\n";
  for (const auto& [name, summary] : verbs) out += "    " + in_quotes(name + ":" + summary) + "\n";
  out +=
      "  )\n  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then\n"
      "    _describe verb verbs\n    return\n  fi\n"
      "  local command=$words[2]\n  [[ $command == -* ]] && command=chat\n";
  for (const auto& verb : verbs)
    if (const auto words = second_words(table, verb.first); !words.empty())
      out += fmt::format(
          "  if [[ $command == {0} ]]; then\n    if (( CURRENT == 3 )); then\n"
          "      compadd -- {1}\n      return\n    fi\n    command=\"{0} $words[3]\"\n  fi\n",
          verb.first, joined(words, " "));
  out += "  case $command in\n";
  for (const auto& group : same_options(table)) {
    out += fmt::format("    ({}) _arguments", paths(group));
    for (const auto& option : group.commands.front()->options)
      out += " \\\n      " + zsh_argument(option);
    out += " ;;\n";
  }
  return out +
         "  esac\n}\nif [[ $funcstack[1] == _crumb ]]; then _crumb; else compdef _crumb crumb; "
         "fi\n";
}

std::string fish_completion(const std::vector<Command>& table, const Summaries& verbs) {
  const auto escaped = [](std::string_view text) {
    std::string out = "'";
    for (const char c : text) {
      if (c == '\'' || c == '\\') out += '\\';
      out += c;
    }
    return out + "'";
  };
  std::string out = "# fish completion of crumb, written by `crumb completion fish`\n";
  for (const auto& [name, summary] : verbs) {
    out += fmt::format("complete -c crumb -n __fish_use_subcommand -f -a {} -d {}\n", name,
                       escaped(summary));
    if (const auto words = second_words(table, name); !words.empty())
      out += fmt::format(
          "complete -c crumb -n '__fish_seen_subcommand_from {0}; and not "
          "__fish_seen_subcommand_from {1}' -f -a '{1}'\n",
          name, joined(words, " "));
  }
  for (const auto& group : same_options(table)) {
    const Command& first = *group.commands.front();
    std::string condition = "__fish_seen_subcommand_from " + first.verb();
    if (first.path() != first.verb()) {
      std::vector<std::string> seconds;
      for (const Command* command : group.commands)
        seconds.push_back(command->path().substr(first.verb().size() + 1));
      condition += "; and __fish_seen_subcommand_from " + joined(seconds, " ");
    }
    for (const auto& option : first.options) {
      if (option.positional) continue;
      out += "complete -c crumb -n " + escaped(condition);
      for (const auto& name : option.names)
        out += name.starts_with("--") ? " -l " + name.substr(2)
               : name.size() == 2     ? " -s " + name.substr(1)
                                      : " -o " + name.substr(1);
      if (!option.flag) out += takes_file(option) ? " -r -F" : " -x";
      if (!option.choices.empty()) out += " -a " + escaped(joined(option.choices, " "));
      out += " -d " + escaped(option.help) + "\n";
    }
  }
  return out;
}

}  // namespace crumb::apps

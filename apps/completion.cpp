#include "apps/completion.h"

#include "apps/args.h"
#include "apps/output.h"
#include "apps/verbs.h"

namespace crumb::apps {

int completion(Context& context) {
  std::string shell;
  Args args(context, "Completion of verbs, options and values, to be sourced by a shell.");
  args.positional("SHELL", shell, true, "bash, zsh or fish");
  args.example("source <(crumb completion bash)");
  args.example("crumb completion zsh > ~/.zfunc/_crumb");
  args.example("crumb completion fish > ~/.config/fish/completions/crumb.fish");
  if (!args.parse()) return 0;
  parse_choice(shell, {"bash", "zsh", "fish"}, "SHELL");
  Summaries summaries;
  for (const Verb& verb : verbs())
    if (!verb.summary.empty()) summaries.emplace_back(verb.name, verb.summary);
  const auto table = option_table();
  write_stdout(shell == "bash"  ? bash_completion(table, summaries)
               : shell == "zsh" ? zsh_completion(table, summaries)
                                : fish_completion(table, summaries));
  return 0;
}

}  // namespace crumb::apps

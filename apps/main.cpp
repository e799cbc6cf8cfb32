// The verb table, and the one place where exceptions end.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <string>
#include <vector>

#include "apps/errors.h"
#include "apps/output.h"
#include "apps/settings.h"
#include "apps/terminal.h"
#include "apps/verbs.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

std::string usage() {
  std::string text = "Usage: crumb [VERB] [OPTIONS]\n\n";
  for (const auto& verb : verbs())
    if (!verb.summary.empty()) text += fmt::format("  {:<10} {}\n", verb.name, verb.summary);
  return text + "\ncrumb VERB --help lists a verb's options.\n";
}

bool is_any_of(const std::string& text, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), text) != names.end();
}

int dispatch(std::vector<std::string> args) {
  if (args.empty()) {
    if (is_terminal(STDIN_FILENO) && is_terminal(STDERR_FILENO)) {
      args = {"chat"};
    } else {
      throw Error(ExitCode::kUsage, "no verb given", "crumb --help lists the verbs");
    }
  }
  std::string name = args.front();
  if (is_any_of(name, {"--help", "-h", "help"})) {
    write_stdout(usage());
    return 0;
  }
  if (is_any_of(name, {"--version", "-V"})) name = "version";
  if (name.starts_with('-')) {  // options alone: a conversation with them
    name = "chat";
    args.insert(args.begin(), name);
  }
  for (const auto& verb : verbs()) {
    if (verb.name != name) continue;
    Context context;
    context.program = "crumb " + name;
    context.args.assign(args.begin() + 1, args.end());
    Settings settings(config_files(), option_table);
    if (verb.settings) context.settings = &settings;
    return verb.run(context);
  }
  throw Error(ExitCode::kUsage, fmt::format("unknown verb '{}'", name),
              "crumb --help lists the verbs");
}

}  // namespace
}  // namespace crumb::apps

int main(int argc, char** argv) {
  using namespace crumb::apps;
  secure_standard_streams();
  const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  try {
    return dispatch(args);
  } catch (...) {
    const Failure failure = describe(std::current_exception());
    report(failure, std::find(args.begin(), args.end(), "--json") != args.end());
    return failure.exit_code;
  }
}

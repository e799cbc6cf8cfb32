// Manual pages (man(7) roff) out of the table of options.
#include <filesystem>

#include "apps/args.h"
#include "apps/build_info.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "models/errors.h"
#include "models/file_writer.h"

namespace crumb::apps {
namespace {

struct Row {
  std::string_view name, text;
};
constexpr Row kExitCodes[] = {{"0", "done"},
                              {"1", "an error inside crumb"},
                              {"2", "usage: an option, variable or config.toml"},
                              {"3", "an invalid model or input file"},
                              {"4", "reading or writing failed"},
                              {"5", "out of memory, or over a limit"},
                              {"6", "a number that is none (NaN)"},
                              {"7", "a quality gate or a benchmark comparison failed"},
                              {"8", "this CPU is not supported"},
                              {"130, 143", "interrupted (SIGINT, SIGTERM); state is saved"}};
constexpr Row kFiles[] = {
    {"$XDG_CONFIG_HOME/crumb/config.toml", "settings (without the variable ~/.config)"},
    {"/etc/crumb/config.toml", "settings of the machine"},
    {"$XDG_DATA_HOME/crumb/models",
     "the default model, after the folders beside the program; then the same in $XDG_DATA_DIRS"},
    {"$XDG_STATE_HOME/crumb", "history and conversations of `crumb chat`, readable by you alone"}};
constexpr Row kVariables[] = {
    {"CRUMB_API_KEY", "the key that clients of `crumb serve` must show"},
    {"NO_COLOR, CLICOLOR_FORCE, TERM, COLUMNS", "colours and width of what goes to a terminal"}};
constexpr std::string_view kPrecedence =
    "An option that is not given is taken from the environment (CRUMB_CTX_SIZE for "
    "\\-\\-ctx\\-size; "
    "flags take 1, true, on, 0, false, off), then from config.toml, then from the model file. "
    "In config.toml a key above all tables holds for every verb that has such an option, a key in "
    "the table [run] for `crumb run` alone.";

std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) out += "\\&";
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  return out;
}

std::string bold(std::string_view text) { return "\\fB" + roff(text) + "\\fR"; }

std::string rows(std::string_view title, std::span<const Row> table) {
  std::string out = fmt::format(".SH {}\n", title);
  for (const auto& row : table) out += ".TP\n" + bold(row.name) + "\n" + roff(row.text) + "\n";
  return out;
}

std::string head(const std::string& name, std::string_view summary) {
  std::string upper = name;
  for (char& c : upper) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return fmt::format(".TH {} 1 \"\" \"crumb {}\" \"User commands\"\n.SH NAME\n{} \\- {}\n",
                     roff(upper), kBuildInfo.version, roff(name), roff(summary));
}

std::string option_text(const Option& option) {
  std::string names;
  for (const auto& name : option.names) names += (names.empty() ? "" : ", ") + bold(name);
  if (!option.value_name.empty()) names += " \\fI" + roff(option.value_name) + "\\fR";
  return ".TP\n" + names + "\n" + roff(option.help) + "\n";
}

std::string synopsis(const Command& command) {
  std::string line = bold(command.program) + " [\\fIOPTION\\fR]...";
  for (const auto& option : command.options) {
    if (!option.positional) continue;
    const std::string name = "\\fI" + roff(option.names.front()) + "\\fR";
    line += (option.required ? " " + name : " [" + name + "]") + (option.repeated ? "..." : "");
  }
  return line + "\n";
}

std::string verb_page(const Verb& verb, const std::vector<Command>& table) {
  std::vector<Command> own;
  for (const auto& command : table)
    if (command.verb() == verb.name) own.push_back(command);
  std::string out = head("crumb-" + std::string(verb.name), verb.summary) + ".SH SYNOPSIS\n";
  for (const auto& command : own) out += synopsis(command) + ".br\n";
  out += ".SH DESCRIPTION\n";
  for (const auto& command : own) {
    if (own.size() > 1) out += ".TP\n" + bold(command.path()) + "\n";
    out += roff(command.summary) + "\n";
  }
  for (const auto& group : same_options(own)) {
    std::string title = "OPTIONS";
    if (own.size() > 1) {
      title += " OF";
      for (const Command* command : group.commands)
        title += (command == group.commands.front() ? " " : ", ") + command->path();
    }
    out += ".SH " + roff(title) + "\n";
    for (const auto& option : group.commands.front()->options) out += option_text(option);
  }
  std::string examples;
  for (const auto& command : own) examples += command.examples;
  if (!examples.empty()) out += ".SH EXAMPLES\n.nf\n" + roff(examples) + ".fi\n";
  if (verb.settings) out += ".SH ENVIRONMENT\n" + std::string(kPrecedence) + "\n";
  return out + ".SH SEE ALSO\n.BR crumb (1)\n";
}

std::string main_page() {
  std::string out = head("crumb", "low-bit language models on the CPU") +
                    ".SH SYNOPSIS\n.B crumb\n\\fIVERB\\fR [\\fIOPTION\\fR]...\n"
                    ".SH DESCRIPTION\nQuantizes, runs, measures and serves language models. "
                    "Without a verb, on a terminal, it is\n.BR \"crumb chat\" .\n.SH VERBS\n";
  std::string see;
  for (const Verb& verb : verbs()) {
    if (verb.summary.empty()) continue;
    out += ".TP\n" + bold(verb.name) + "\n" + roff(verb.summary) + "\n";
    see += fmt::format("{}.BR crumb\\-{} (1)", see.empty() ? "" : ",\n", verb.name);
  }
  return out + ".SH ENVIRONMENT\n" + std::string(kPrecedence) + "\n" +
         rows("VARIABLES", kVariables) + rows("FILES", kFiles) + rows("EXIT STATUS", kExitCodes) +
         ".SH SEE ALSO\n" + see + "\n";
}

}  // namespace

int man(Context& context) {
  std::string name, folder;
  Args args(context, "Manual pages, made from the options themselves.");
  args.positional("VERB", name, false, "the page of this verb (default: the main page)");
  args.text("--output", folder, "DIR", "write all pages there instead");
  if (!args.parse()) return 0;
  const auto table = option_table();
  bool found = name.empty();
  if (found && folder.empty()) write_stdout(main_page());
  if (!folder.empty()) models::write_file(folder + "/crumb.1", main_page());
  for (const Verb& verb : verbs()) {
    if (verb.summary.empty()) continue;
    if (!folder.empty())
      models::write_file(fmt::format("{}/crumb-{}.1", folder, verb.name), verb_page(verb, table));
    else if (verb.name == name)
      write_stdout(verb_page(verb, table));
    found = found || verb.name == name;
  }
  if (!found) throw Error(ExitCode::kUsage, fmt::format("unknown verb '{}'", one_line(name)));
  return 0;
}

}  // namespace crumb::apps

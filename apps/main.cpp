// The verb table, and the one place where exceptions end.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <string>
#include <vector>

#include "apps/errors.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/verbs.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

struct Verb {
  std::string_view name, summary;
  int (*run)(Context&);
};
constexpr Verb kVerbs[] = {
    {"chat", "talk with a model (what `crumb` alone does on a terminal)", chat},
    {"run", "answer one prompt, the answer alone on stdout", run},
    {"serve", "OpenAI's API over HTTP, many answers at a time", serve},
    {"bench", "tokens per second, beside the memory's bandwidth", bench},
    {"quantize", "make a model small", quantize},
    {"train", "distill a small model from a large one's answers", train},
    {"eval", "perplexity, divergence, logits", eval},
    {"search", "evolve what predicts the cost of widths", search},
    {"inspect", "what is in a model file", inspect},
    {"tokenize", "text to token ids and back", tokenize},
    {"convert", "write a model for other programs", convert},
    {"estimate", "how much memory a model would take", estimate},
    {"topo", "which cores would be used, and why", topo},
    {"doctor", "check kernels, memory, threads, folders", doctor},
    {"version", "version, build and environment", version},
};

std::string usage() {
  std::string text = "Usage: crumb [VERB] [OPTIONS]\n\n";
  for (const auto& verb : kVerbs) text += fmt::format("  {:<10} {}\n", verb.name, verb.summary);
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
  for (const auto& verb : kVerbs) {
    if (verb.name != name) continue;
    Context context;
    context.program = "crumb " + name;
    context.args.assign(args.begin() + 1, args.end());
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

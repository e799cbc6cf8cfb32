// crumb search WHAT: emq (search_emq.cpp) or apq (search_apq.cpp).
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "apps/args.h"
#include "apps/search_args.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

constexpr struct {
  std::string_view name;
  int (*run)(Context& context);
} kSearches[] = {{"emq", search_emq}, {"apq", search_apq}};

}  // namespace

void require_writable(const std::string& path) {
  if (path.empty()) return;
  const auto folder = std::filesystem::path(path).parent_path();
  const std::string at = folder.empty() ? "." : folder.string();
  if (::access(at.c_str(), W_OK | X_OK) == 0) return;
  throw IoError("cannot write (" + path + ": " + std::generic_category().message(errno) + ")");
}

int search(Context& context) {
  const auto word = std::ranges::find_if(
      context.args, [](const std::string& arg) { return !arg.empty() && arg.front() != '-'; });
  if (word != context.args.end()) {
    const auto* found = std::ranges::find(kSearches, *word, [](const auto& s) { return s.name; });
    if (found == std::end(kSearches))
      throw Error(ExitCode::kUsage, "unknown search (expected emq or apq, found " + *word + ")");
    return found->run(context);
  }
  std::string what;
  Args args(context.program,
            "Searches that --allocate applies: emq, a formula that tells what widths cost; apq, "
            "layers, sizes and widths together under a limit of time.");
  args.positional("WHAT", what, true, "emq or apq; crumb search WHAT --help says more");
  args.example("crumb search apq model.gguf --latency table.json --limits 0.7 -o plan.json");
  return args.parse(context.args) ? 2 : 0;
}

}  // namespace crumb::apps

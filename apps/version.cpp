#include <string_view>

#include "apps/build_info.h"
#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "kernels/backend.h"

extern char** environ;

namespace crumb::apps {
namespace {

constexpr const char* kKnown[] = {"CRUMB_MODEL", "CRUMB_THREADS", "CRUMB_ISA"};

// All CRUMB_* variables, so that a misspelt one is seen.
std::vector<std::string> crumb_variables() {
  std::vector<std::string> found;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (std::string_view(*entry).starts_with("CRUMB_API_KEY="))
      found.emplace_back("CRUMB_API_KEY=(set)");  // a secret
    else if (std::string_view(*entry).starts_with("CRUMB_"))
      found.emplace_back(*entry);
  return found;
}

bool known(std::string_view entry) {
  if (entry.starts_with("CRUMB_API_KEY=")) return true;  // of `serve`, and not to be shown
  for (const std::string_view name : kKnown)
    if (entry.substr(0, entry.find('=')) == name) return true;
  return false;
}

}  // namespace

int version(Context& context) {
  bool verbose = false, json = false;
  Args args(context.program, "Version, build and environment.");
  args.flag("-v,--verbose", verbose, "also compiler, instruction sets, environment");
  args.flag("--json", json, "one JSON object");
  if (!args.parse(context.args)) return 0;
  if (json) {
    Json variables = Json::object();
    for (const auto& entry : crumb_variables())
      variables[entry.substr(0, entry.find('='))] = entry.substr(entry.find('=') + 1);
    write_stdout(to_text({{"schema", "crumb.version/1"},
                          {"version", kBuildInfo.version},
                          {"commit", kBuildInfo.commit},
                          {"compiler", kBuildInfo.compiler},
                          {"build_type", kBuildInfo.build_type},
                          {"cpu_features", kernels::cpu_features()},
                          {"environment", variables}}));
    return 0;
  }
  put("crumb {} ({})\n", kBuildInfo.version, kBuildInfo.commit);
  if (!verbose) return 0;
  put("compiler      {} {} {}\n", kBuildInfo.compiler, kBuildInfo.build_type, kBuildInfo.flags);
  put("kernels       {}\n", fmt::join(kernels::compiled_backends(), " "));
  put("cpu features  {}\n", kernels::cpu_features());
  for (const char* name : kKnown) put("{:<13} {}\n", name, environment(name).value_or("(unset)"));
  for (const auto& entry : crumb_variables())
    if (!known(entry)) put("{} (unknown to crumb)\n", entry);
  put("model folders {}\n", fmt::join(default_model_folders(), "\n              "));
  return 0;
}

}  // namespace crumb::apps

#include <filesystem>
#include <string_view>

#include "apps/build_info.h"
#include "apps/line_editor.h"
#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/settings.h"
#include "apps/verbs.h"
#include "kernels/backend.h"

extern char** environ;

namespace crumb::apps {
namespace {

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

// Some option's variable, or one that is read by name.
bool known(std::string_view entry, const std::vector<Command>& table) {
  const std::string_view name = entry.substr(0, entry.find('='));
  if (name == "CRUMB_API_KEY" || name == "CRUMB_SERVE_OPTIONS") return true;
  for (const auto& command : table)
    for (const auto& option : command.options)
      if (name == variable_name(option.long_name())) return true;
  return false;
}

std::vector<std::string> libraries() {
  std::vector<std::string> list(1);
  for (const char c : kBuildInfo.libraries)
    if (c == ';')
      list.emplace_back();
    else
      list.back() += c;
  return list;
}

}  // namespace

int version(Context& context) {
  bool verbose = false, json = false;
  Args args(context, "Version, build and environment.");
  args.flag("-v,--verbose", verbose, "also compiler, instruction sets, environment");
  args.flag("--json", json, "one JSON object");
  if (!args.parse()) return 0;
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
                          {"libraries", libraries()},
                          {"environment", variables}}));
    return 0;
  }
  put("crumb {} ({})\n", kBuildInfo.version, kBuildInfo.commit);
  if (!verbose) return 0;
  put("compiler      {} {} {}\n", kBuildInfo.compiler, kBuildInfo.build_type, kBuildInfo.flags);
  put("kernels       {}\n", fmt::join(kernels::compiled_backends(), " "));
  put("cpu features  {}\n", kernels::cpu_features());
  for (const auto& library : libraries()) put("library       {}\n", library);
  const auto table = option_table();
  for (const auto& entry : crumb_variables())
    put("{}{}\n", one_line(entry), known(entry, table) ? "" : " (unknown to crumb)");
  for (const auto& path : config_files()) {
    std::error_code error;
    put("config        {} {}\n", one_line(path),
        std::filesystem::exists(path, error) ? "(read)" : "(not there)");
  }
  put("state folder  {}\n", std::filesystem::path(history_path()).parent_path().string());
  put("model folders {}\n", fmt::join(default_model_folders(), "\n              "));
  return 0;
}

}  // namespace crumb::apps

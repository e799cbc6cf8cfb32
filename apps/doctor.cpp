#include <unistd.h>

#include <filesystem>

#include "apps/bench_bandwidth.h"
#include "apps/doctor_kernels.h"
#include "apps/line_editor.h"
#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

constexpr int kPasses = 5;

struct Finding {
  std::string what, detail;
  bool good = true;
};

Finding kernels_of(const kernels::Backend& backend) {
  const auto checks = check_kernels(backend);
  std::vector<std::string> bad;
  for (const auto& check : checks)
    if (!check.equal) bad.push_back(check.name);
  const std::string what = "kernels " + std::string(backend.name);
  if (bad.empty())
    return {what, fmt::format("{} checks, equal to scalar bit for bit", checks.size()), true};
  return {what, fmt::format("differ from scalar: {}", fmt::join(bad, "; ")), false};
}

Finding instruction_sets() {
  std::vector<std::string> runnable, missing;
  for (const auto name : kernels::compiled_backends())
    (kernels::find_backend(name) != nullptr ? runnable : missing).emplace_back(name);
  std::string detail = fmt::format("usable: {}", fmt::join(runnable, " "));
  if (!missing.empty()) detail += fmt::format("; not on this CPU: {}", fmt::join(missing, " "));
  return {"instruction sets", detail + fmt::format(" ({})", kernels::cpu_features()), true};
}

Finding thread_plan(const threads::Plan& plan) {
  return {"threads", fmt::format("{}", fmt::join(plan.reasons, "; ")), true};
}

Finding bandwidth(const threads::Plan& plan) {
  const Bandwidth measured = measure_bandwidth(plan, 0, kPasses);
  return {"memory",
          fmt::format("{:.1f} GB/s read by {} threads (median {:.1f}, {} buffer)",
                      measured.best / 1e9, plan.threads, measured.median / 1e9,
                      human_bytes(static_cast<double>(measured.buffer_bytes))),
          true};
}

Finding state_folder() {
  const std::string path = history_path();
  if (path.empty())
    return {"state folder", "none (no HOME, or it cannot be made): chat keeps no history", true};
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (access(folder.c_str(), W_OK) != 0)
    return {"state folder", folder + " is not writable: no history", false};
  return {"state folder", folder + " is writable", true};
}

Finding model(const ModelArgs& args) {
  try {
    return {"model", model_path(args), true};
  } catch (const Error& e) {
    return {"model", e.what(), true};  // a machine without a model is not ill
  }
}

}  // namespace

int doctor(Context& context) {
  bool json = false;
  ModelArgs args_of_model;
  Args args(context, "Check instruction sets, kernels, memory, threads and folders.");
  add_model(args, args_of_model);
  args.flag("--json", json, "one JSON object");
  if (!args.parse()) return 0;
  const threads::Plan plan = threads::make_plan(thread_count(args_of_model), true);
  std::vector<Finding> findings = {instruction_sets()};
  for (const auto* backend : kernels::backends()) findings.push_back(kernels_of(*backend));
  findings.push_back(thread_plan(plan));
  findings.push_back(bandwidth(plan));
  findings.push_back(state_folder());
  findings.push_back(model(args_of_model));
  bool good = true;
  Json list = Json::array();
  for (const auto& finding : findings) {
    good = good && finding.good;
    list.push_back({{"what", finding.what}, {"good", finding.good}, {"detail", finding.detail}});
    if (!json) put("{} {:<18} {}\n", finding.good ? "ok  " : "BAD ", finding.what, finding.detail);
  }
  if (json)
    write_stdout(to_text({{"schema", "crumb.doctor/1"}, {"good", good}, {"findings", list}}));
  return good ? 0 : static_cast<int>(ExitCode::kGate);
}

}  // namespace crumb::apps

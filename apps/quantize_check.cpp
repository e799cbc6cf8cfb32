#include "apps/quantize_check.h"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "apps/output.h"
#include "apps/progress.h"
#include "models/errors.h"
#include "models/tensors.h"
#include "quant/presets.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargestCheck = int64_t{2} << 30;  // bytes of a source checked without asking

int64_t parameters_of(const models::ModelConfig& config) {
  int64_t sum = 0;
  for (const auto& tensor : models::tensor_table(config)) sum += models::weights_of(tensor);
  return sum;
}

}  // namespace

void print_notice(const std::string& line) { note("crumb: note: {}\n", line); }

std::optional<eval::KlResult> check_quality(const QuantizeArgs& given, Context& context,
                                            const models::SourceModel& source,
                                            const quant::CalibrationWindows& held_out,
                                            bool calibrated) {
  const bool wanted = calibrated || given.gate;
  const int64_t windows = given.check_windows.value_or(wanted ? kHeldOut : 0);
  if (windows == 0) return std::nullopt;
  const int64_t floats = 4 * parameters_of(source.config);
  if (floats > kLargestCheck && !given.gate && !given.check_windows) {
    print_notice("quality is not checked: the source would take " +
                 human_bytes(static_cast<double>(floats)) + " (--check-windows 2 does it)");
    return std::nullopt;
  }
  eval::Windows text;
  text.size = held_out.S;
  text.ids = held_out.ids;
  text.count = std::min(windows, held_out.count());
  if (text.count == 0) {
    print_notice("quality is not checked: the calibration text is too short to keep some back");
    return std::nullopt;
  }
  return divergence(context, source, given.output, text, given.model, given.quiet);
}

eval::KlResult divergence(Context& context, const models::SourceModel& source,
                          const std::string& path, const eval::Windows& text,
                          const ModelArgs& model, bool quiet) {
  return with_progress(!quiet, context.signals, [&](const ProgressFn& progress) {
    const auto base = Engine::from_source(source, load_options(model));
    const auto made = Engine::load(path, load_options(model));
    return eval::kl_divergence(*base, *made, text, kernels::KvType::kI8, progress);
  });
}

Json check_json(const eval::KlResult& check, double gate) {
  return {{"mean_kld", check.mean_kld}, {"kld_p99", check.kld_p99},
          {"top1", check.top1},         {"ppl", check.ppl},
          {"ppl_base", check.ppl_base}, {"ppl_ratio", check.ppl_ratio},
          {"tokens", check.tokens},     {"gate", gate}};
}

void show_check(const eval::KlResult& check) {
  note(
      "check: KL {:.4f} · same top-1 {:.1f} % · ppl {:.2f}, source {:.2f} · {} tokens of "
      "kept-back text\n",
      check.mean_kld, 100 * check.top1, check.ppl, check.ppl_base, check.tokens);
}

double gate_of(const QuantizeArgs& given) {
  if (given.gate) return *given.gate;
  return given.preset.empty() ? std::numeric_limits<double>::infinity()
                              : quant::find_preset(given.preset)->gate;
}

void reject(const std::string& path, double divergence, double limit, const std::string& hint) {
  const std::string kept = path + ".rejected";
  std::error_code error;
  fs::rename(path, kept, error);
  throw Error(ExitCode::kGate,
              fmt::format("quality gate: divergence from the source {:.4f} nats a token (expected "
                          "at most {:.4f}; the file is kept as {})",
                          divergence, limit, error ? path : kept),
              hint);
}

}  // namespace crumb::apps

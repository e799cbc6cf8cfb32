// crumb search qvlm: how far inputs and weights are clipped where both are of few bits, searched
// jointly in blocks of linears that depend on each other.
#include "apps/args.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "apps/search_args.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/source.h"
#include "quant/qvlm/search.h"

namespace crumb::apps {
namespace {

namespace qvlm = quant::qvlm;

struct QvlmArgs {
  std::string source, calibration, output, partition = "entropy";
  qvlm::QvlmOptions search;
  int64_t windows = 2, length = 128, check_windows = 8;
  bool json = false, quiet = false;
};

bool parse(Context& context, QvlmArgs& given) {
  Args args(context,
            "Q-VLM: clips of weights and of inputs that are both rounded to few bits, searched "
            "jointly in blocks of linears that depend on each other by the entropy between them.");
  qvlm::RoundingForm& form = given.search.form;
  form.rotation = {64, 1};
  args.positional("SRC", given.source, true, "the model, in full precision");
  args.integer("--bits", form.weight_bits, 2, 8, "of weights: 2, 3, 4 or 8 (default 4)");
  args.integer("--input-bits", form.input_bits, 2, 8, "of inputs, by token (default 4)");
  args.integer("--group", form.group, 0, 128, "columns that share a scale (default 64; 0: a row)");
  args.option("--rotate", "N", "Hadamard blocks of inputs, 0 for none (default 64)",
              [&form](const std::string& s) {
                form.rotation.hadamard =
                    std::stoi(parse_choice(s, {"0", "32", "64", "128", "256", "512"}, "--rotate"));
              });
  args.integer("--most", given.search.most, 1, 4, "linears of a block (default 3)");
  args.real("--budget", given.search.budget, 0, 1,
            "evaluations, as a part of those of such blocks everywhere (default 0.25)");
  args.choice("--partition", given.partition, {"entropy", "mean"},
              "the cheapest by entropy within the budget, or a linear joins the one before while "
              "its entropy is the mean's or more, as released (default entropy)");
  args.flag("--fixed", given.search.fixed, "search blocks of --most everywhere too: the control");
  args.flag("--pairs", given.search.pairs,
            "measure the dependency of all neighbours, which entropy stands for");
  args.text("--calib", given.calibration, "FILE",
            "text to search on (default: a small corpus of our own)");
  args.integer("--windows", given.windows, 1, 1 << 16, "windows of it (default 2)");
  args.integer("--length", given.length, 16, 1 << 16, "tokens of a window (default 128)");
  args.integer("--check-windows", given.check_windows, 1, 1 << 16,
               "further windows, that divergence is measured on (default 8)");
  args.integer("-t,--threads", given.search.threads, 0, 4096,
               "threads (default: all; the result does not depend on it)");
  args.text("-o,--output", given.output, "FILE", "the result");
  args.flag("--json", given.json, "the result on stdout");
  args.flag("-q,--quiet", given.quiet, "no remarks");
  args.example("crumb search qvlm model.gguf --fixed --pairs -o clips.json");
  if (!args.parse()) return false;
  given.search.by_mean = given.partition == "mean";
  if (!kernels::valid_bits(form.weight_bits))
    throw Error(ExitCode::kUsage, "invalid value (--bits: expected 2, 3, 4 or 8)");
  return true;
}

Json clips_json(const qvlm::Clips& clips) {
  return {{"input", clips.input}, {"weight", clips.weight}};
}

Json report_json(const QvlmArgs& given, const qvlm::QvlmReport& report) {
  const qvlm::RoundingForm& form = given.search.form;
  Json json = {{"schema", "crumb.qvlm/1"},
               {"form",
                {{"bits", form.weight_bits},
                 {"group", form.group},
                 {"input_bits", form.input_bits},
                 {"hadamard", form.rotation.hadamard}}},
               {"partition", report.partition},
               {"rule", given.partition}};
  for (std::size_t i = 0; i < report.sites.size(); ++i)
    json["sites"].push_back({{"name", report.names[i]},
                             {"entropy", report.sites[i].entropy},
                             {"error", report.sites[i].error},
                             {"separate", clips_json(report.sites[i].clips)}});
  for (const qvlm::Setting& setting : report.settings) {
    Json one = {{"name", setting.name},
                {"evaluations", setting.evaluations},
                {"block_error", setting.block_error},
                {"kl", setting.checked.kl},
                {"top1", setting.checked.top1},
                {"seconds", setting.seconds}};
    for (const qvlm::Clips& clips : setting.clips) one["clips"].push_back(clips_json(clips));
    json["settings"].push_back(std::move(one));
  }
  for (const qvlm::Pair& pair : report.pairs)
    json["pairs"].push_back({{"site", pair.site},
                             {"entropy", pair.entropy},
                             {"error", pair.error},
                             {"dependency", pair.dependency}});
  if (!report.pairs.empty())
    json["r2"] = {{"entropy", report.entropy_r2}, {"error", report.error_r2}};
  return json;
}

void show(const qvlm::QvlmReport& report) {
  std::string blocks;
  std::size_t site = 0;
  for (const int64_t length : report.partition) {
    if (length > 1)
      blocks += fmt::format(" {}..{}", report.names[site],
                            report.names[site + static_cast<std::size_t>(length) - 1]);
    site += static_cast<std::size_t>(length);
  }
  note("blocks:{}, the others alone\n", blocks.empty() ? " none" : blocks);
  for (const qvlm::Setting& setting : report.settings)
    note("{:<13} KL {:.4f}, same top-1 {:.1f} %, block error {:.5f}, {} evaluations, {:.0f} s\n",
         setting.name, setting.checked.kl, 100 * setting.checked.top1, setting.block_error,
         setting.evaluations, setting.seconds);
  if (!report.pairs.empty())
    note("dependency of {} pairs: R2 with entropy {:.3f}, with error {:.3f}\n", report.pairs.size(),
         report.entropy_r2, report.error_r2);
}

}  // namespace

int search_qvlm(Context& context) {
  QvlmArgs given;
  if (!parse(context, given)) return 0;
  require_writable(given.output);
  const models::SourceModel source = models::open_source(given.source);
  // The first windows to search on, the others to check on.
  const TwoTexts text =
      read_two_texts(source, given.calibration, given.windows, given.check_windows, given.length);
  const auto report = with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    return qvlm::search_clips(source, text.first, text.rest, given.search, progress);
  });
  Json json = report_json(given, report);
  json["source"] = {{"hash", source.hash}, {"name", source.config.name}};
  json["text"] = {{"hash", text.hash},
                  {"windows", text.first.count()},
                  {"length", given.length},
                  {"check_windows", text.rest.count()}};
  if (!given.output.empty()) models::write_file(given.output, to_text(json));
  if (given.json) write_stdout(to_text(json));
  if (!given.quiet) show(report);
  return 0;
}

}  // namespace crumb::apps

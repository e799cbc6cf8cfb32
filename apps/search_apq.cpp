// crumb search apq: which layers, sizes and widths together lose least under a limit of time.
#include <algorithm>
#include <sstream>

#include "apps/args.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "apps/search_args.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/source.h"
#include "quant/apq/joint.h"
#include "quant/block_job.h"
#include "quant/calibration_cache.h"

namespace crumb::apps {
namespace {

namespace apq = quant::apq;

struct ApqArgs {
  std::string source, latency, calibration, output, journal;
  std::vector<int64_t> widths = {3, 4, 8};
  std::vector<double> limits = {0.7};
  apq::JointOptions joint;
  int64_t windows = 2, length = 256, importance_windows = 8, group = 64, seed = 1, threads = 0;
  bool json = false, quiet = false;
};

std::vector<double> parse_limits(const std::string& text) {
  std::vector<double> limits;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');)
    limits.push_back(parse_real(part, 0.05, 2, "--limits"));
  if (limits.empty()) throw Error(ExitCode::kUsage, "no limits (--limits: expected 0.6,0.7,...)");
  return limits;
}

void add_search_args(Args& args, ApqArgs& given) {
  apq::JointOptions& o = given.joint;
  args.integer("--samples", o.samples, 10, 100000,
               "subnets measured in float, that teach the predictor (default 300)");
  args.integer("--rounded", o.rounded, 10, 100000,
               "rounded subnets measured, that its successor learns from (default 300)");
  args.integer("--held-out", o.held_out, 5, 10000,
               "of these, that the worth of the float ones is judged on (default 60)");
  args.integer("--rounds", o.rounds, 1, 20,
               "times the winners are measured and learned from (default 4)");
  args.integer("--verify", o.verified, 1, 1000, "winners measured a round and limit (default 16)");
  args.integer("--generations", o.evolve.generations, 1, 1 << 20, "of evolution (default 500)");
  args.integer("--population", o.evolve.population, 4, 100000, "subnets alive (default 100)");
}

bool parse(Context& context, ApqArgs& given) {
  Args args(context,
            "APQ: which layers stay, how wide they are and what widths their weights have, all "
            "together, by measured quality under a measured limit of time.");
  args.positional("SRC", given.source, true, "the model, in full precision");
  args.text("--latency", given.latency, "FILE", "crumb bench --latency-table --pruned of it");
  args.option("--limits", "LIST",
              "of a token's time, as parts of the whole model's at 4 bits (default 0.7)",
              [&given](const std::string& s) { given.limits = parse_limits(s); });
  args.option("--widths", "LIST", "that matrices may have (default 3,4,8)",
              [&given](const std::string& s) { given.widths = parse_list(s, 2, 8, "--widths"); });
  args.integer("--group", given.group, 0, 128,
               "columns that share a scale while subnets are measured (default 64; 0: a row)");
  args.text("--calib", given.calibration, "FILE",
            "text to measure on (default: a small corpus of our own)");
  args.integer("--windows", given.windows, 1, 1 << 16, "windows of it (default 2)");
  args.integer("--length", given.length, 16, 1 << 16, "tokens of a window (default 256)");
  args.integer("--importance-windows", given.importance_windows, 1, 1 << 16,
               "further windows, that the importance of units is measured on (default 8)");
  add_search_args(args, given);
  args.integer("--seed", given.seed, 0, INT64_MAX, "of all that is drawn (default 1)");
  args.text("--journal", given.journal, "FILE",
            "measured subnets; the same command goes on from there (default: OUTPUT with "
            ".samples.jsonl)");
  args.integer("-t,--threads", given.threads, 0, 4096,
               "threads (default: all; the result does not depend on it)");
  args.text("-o,--output", given.output, "FILE", "the result, for crumb quantize --plan");
  args.flag("--json", given.json, "the result on stdout");
  args.flag("-q,--quiet", given.quiet, "no remarks");
  args.example("crumb search apq model.gguf --latency table.json --limits 0.6,0.7,0.8 -o apq.json");
  if (!args.parse()) return false;
  if (given.latency.empty())
    throw Error(ExitCode::kUsage, "no latencies named (expected --latency FILE, found nothing)",
                "crumb bench --latency-table --pruned -m MODEL.crumb makes one");
  const auto kernel_width = [](int64_t bits) {
    return kernels::valid_bits(static_cast<int>(bits));
  };
  if (!std::ranges::all_of(given.widths, kernel_width) ||
      !std::ranges::is_sorted(given.widths, std::less_equal<>{}) ||
      std::ranges::find(given.widths, 4) == given.widths.end())
    throw Error(ExitCode::kUsage,
                "invalid value (--widths: expected 4 and others of 2, 3, 8, growing)");
  if (given.group != 0 && given.group != 32 && given.group != 64 && given.group != 128)
    throw Error(ExitCode::kUsage, "invalid value (--group: expected 0, 32, 64 or 128)");
  if (given.journal.empty() && !given.output.empty())
    given.journal = given.output + ".samples.jsonl";
  given.joint.limits = given.limits;
  given.joint.evolve.parents = std::max(2, given.joint.evolve.population / 4);
  given.joint.evolve.mutants = given.joint.evolve.population / 2;
  given.joint.evolve.crossovers = given.joint.evolve.population - given.joint.evolve.mutants;
  given.joint.seed = static_cast<uint64_t>(given.seed);
  given.joint.threads = static_cast<int>(given.threads);
  return true;
}

// {"pruning", "bits"}: what crumb quantize --plan carries out.
Json plan_of(const apq::Setting& setting, const apq::Subnet& subnet) {
  const quant::Pruning pruning =
      apq::pruning_of(setting.config, setting.space, setting.importance, subnet);
  Json plan;
  plan["pruning"] = Json::parse(quant::pruning_to_json(pruning));
  int64_t place = 0;
  for (const apq::LayerChoice& layer : subnet) {
    if (!layer.present) continue;
    for (const quant::BlockMatrix& m : quant::block_matrices())
      plan["bits"][models::layer_tensor(place, std::string(m.suffix))] =
          setting.space.widths[layer.bits[static_cast<std::size_t>(m.input)]];
    ++place;
  }
  return plan;
}

Json winner_json(const apq::Setting& setting, const apq::Winner& winner) {
  return {{"subnet", apq::text_of(winner.subnet)},
          {"kl", winner.kl},
          {"ns", winner.ns},
          {"plan", plan_of(setting, winner.subnet)}};
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values.empty() ? 0 : values[values.size() / 2];
}

Json limit_json(const apq::Setting& setting, const apq::LimitReport& limit) {
  Json json = {{"limit", limit.limit},
               {"ns", limit.ns},
               {"joint", winner_json(setting, limit.joint)},
               {"predicted_kl", limit.predicted},
               {"evaluated", limit.evaluated},
               {"rejected", limit.rejected},
               {"crossover_survivors", limit.crossed_survivors}};
  for (std::size_t i = 0; i < limit.sequential.size(); ++i) {
    Json one = winner_json(setting, limit.sequential[i]);
    one["depth"] = apq::kSplits[i].depth;
    one["sizes"] = apq::kSplits[i].sizes;
    json["sequential"].push_back(std::move(one));
  }
  for (const apq::Winner& control : limit.random) json["random"].push_back(control.kl);
  return json;
}

Json report_json(const apq::Setting& setting, const apq::JointReport& report,
                 const apq::LatencyTable& table) {
  Json json = {{"schema", "crumb.apq/1"},
               {"space",
                {{"layers", setting.space.layers},
                 {"most_dropped", setting.space.most_dropped},
                 {"ffn", setting.space.ffn},
                 {"kv_heads", setting.space.kv_heads},
                 {"widths", setting.space.widths}}},
               {"latency", {{"of", table.text}, {"context", table.context}}},
               {"whole", {{"bits", 4}, {"kl", report.whole.kl}, {"ns", report.whole.ns}}}};
  for (const apq::TransferRow& row : report.transfer)
    json["transfer"].push_back({{"examples", row.examples},
                                {"with", row.with},
                                {"without", row.without},
                                {"median_with", median(row.with)},
                                {"median_without", median(row.without)}});
  for (const apq::LimitReport& limit : report.limits)
    json["limits"].push_back(limit_json(setting, limit));
  json["seconds"] = {{"samples", report.sample_seconds},
                     {"fit", report.fit_seconds},
                     {"search", report.search_seconds},
                     {"verify", report.verify_seconds}};
  return json;
}

void show(const apq::JointReport& report) {
  for (const apq::TransferRow& row : report.transfer)
    note(
        "predictor from {} rounded subnets: Kendall {:.3f} with float ones first, {:.3f} without\n",
        row.examples, median(row.with), median(row.without));
  note("whole at 4 bits: {:.3f} ms a token, KL {:.4f}\n", report.whole.ns * 1e-6, report.whole.kl);
  for (const apq::LimitReport& limit : report.limits) {
    std::vector<double> random;
    for (const apq::Winner& control : limit.random) random.push_back(control.kl);
    note(
        "limit {:.2f} ({:.3f} ms): joint {:.4f} ({} layers dropped), prune then allocate {:.4f}, "
        "random {}\n",
        limit.limit, limit.ns * 1e-6, limit.joint.kl, apq::dropped(limit.joint.subnet),
        limit.sequential.front().kl,
        random.empty() ? "none within it" : fmt::format("{:.4f}", median(random)));
  }
  note("samples {:.0f} s, fits {:.1f} s, search {:.1f} s, winners {:.0f} s\n",
       report.sample_seconds, report.fit_seconds, report.search_seconds, report.verify_seconds);
}

}  // namespace

int search_apq(Context& context) {
  ApqArgs given;
  if (!parse(context, given)) return 0;
  require_writable(given.output);
  require_writable(given.journal);
  const models::SourceModel source = models::open_source(given.source);
  const std::vector<int> widths(given.widths.begin(), given.widths.end());
  const apq::Space space = apq::space_of(source.config, widths);
  const apq::LatencyTable table = apq::latency_from_json(read_text(given.latency), given.latency);
  latency_of(table, source.config, space, apq::whole_subnet(space, 0));  // it is of this model
  // The first windows to measure subnets on, the others for importance.
  const TwoTexts text = read_two_texts(source, given.calibration, given.windows,
                                       given.importance_windows, given.length);
  const int threads = given.joint.threads;
  quant::Method method;
  method.group = given.group;
  method.grid = kernels::Grid::kAsym;
  method.rule = quant::ScaleRule::kAbsMax;
  const std::string identity =
      fmt::format("{} {} {} {} {} {}", source.hash, text.hash, given.windows, given.length,
                  given.group, fmt::join(given.widths, ","));
  apq::SampleStore store(given.journal, identity);
  if (!given.quiet && store.size() > 0)
    note("{} measured subnets in {}\n", store.size(), given.journal);
  const auto importance =
      with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
        return quant::measure_importance(source, text.rest, threads, progress);
      });
  const apq::Setting setting{source.config, space, importance};
  const auto report = with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    const apq::SubnetMeter meter(source, text.first, method, threads, progress);
    return apq::search_jointly(source, meter, setting, table, method, given.joint, &store,
                               progress);
  });
  Json json = report_json(setting, report, table);
  json["source"] = {{"hash", source.hash}, {"name", source.config.name}};
  json["text"] = {{"hash", text.hash},
                  {"windows", given.windows},
                  {"length", given.length},
                  {"importance_windows", text.rest.count()}};
  json["rounding"] = fmt::format("nearest, asym, group {}", given.group);
  json["seed"] = given.seed;
  if (!given.output.empty()) models::write_file(given.output, to_text(json));
  if (given.json) write_stdout(to_text(json));
  if (!given.quiet) show(report);
  return 0;
}

}  // namespace crumb::apps

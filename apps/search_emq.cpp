// crumb search emq: which formula over weights, inputs and gradients tells best what widths cost.
#include <numeric>

#include "apps/args.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "apps/search_args.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/source.h"
#include "models/text.h"
#include "quant/corpus.h"
#include "quant/emq/evolve.h"

namespace crumb::apps {
namespace {

namespace emq = quant::emq;

struct SearchArgs {
  std::string source, bench, calibration, output, mode = "err";
  std::vector<int64_t> widths = {2, 3, 4};
  int64_t population = 60, iterations = 1000, seed = 1, threads = 0;
  bool no_diversity = false, no_screening = false, json = false, quiet = false;
};

bool parse(Context& context, SearchArgs& given) {
  Args args(context,
            "Evolve EMQ's proxy on measured plans (bench/quality/mq_bench.py): half of them to "
            "learn from, half to judge by.");
  args.positional("SRC", given.source, true, "the model the plans are of");
  args.text("--bench", given.bench, "FILE", "measured plans");
  args.option("--widths", "LIST", "plans whose widths are all among these (default 2,3,4)",
              [&given](const std::string& s) { given.widths = parse_list(s, 2, 8, "--widths"); });
  args.choice("--mode", given.mode, names(emq::kModes),
              "a statistic times the width (the paper's), or with the rounding error as a term "
              "(default err)");
  args.integer("--population", given.population, 2, 100000, "proxies alive (default 60)");
  args.integer("--iterations", given.iterations, 1, 1 << 24, "children made (default 1000)");
  args.integer("--seed", given.seed, 0, INT64_MAX, "of all that is drawn (default 1)");
  args.flag("--no-diversity", given.no_diversity, "no newcomer beside each child");
  args.flag("--no-screening", given.no_screening, "evaluate formulas again and bad ones whole");
  args.text("--calib", given.calibration, "FILE",
            "text for inputs and gradients (default: a small corpus of our own)");
  args.integer("-t,--threads", given.threads, 0, 4096, "threads (default: all)");
  args.text("-o,--output", given.output, "FILE", "the proxy, for crumb quantize --proxy");
  args.flag("--json", given.json, "the result on stdout, as JSON");
  args.flag("-q,--quiet", given.quiet, "no remarks");
  args.example("crumb search emq model.gguf --bench plans.json -o proxy.json");
  if (!args.parse()) return false;
  if (given.bench.empty())
    throw Error(ExitCode::kUsage, "no plans named (expected --bench FILE, found nothing)");
  return true;
}

// Every second plan of a benchmark to learn from, the others to judge by.
struct Halves {
  std::vector<std::size_t> train, test;
};
Halves halves_of(const emq::Benchmark& benchmark) {
  Halves halves;
  for (std::size_t i = 0; i < benchmark.plans.size(); ++i)
    (i % 2 == 0 ? halves.train : halves.test).push_back(i);
  return halves;
}

void require_same_model(const emq::Benchmark& benchmark, std::span<const emq::MatrixTerms> terms) {
  bool same = benchmark.matrices.size() == terms.size();
  for (std::size_t i = 0; same && i < terms.size(); ++i)
    same = benchmark.matrices[i] == terms[i].name;
  if (!same)
    throw Error(ExitCode::kUsage, "plans of another model (expected its " +
                                      std::to_string(terms.size()) + " matrices, found " +
                                      std::to_string(benchmark.matrices.size()) + ")");
}

// Scores of the judging half, and what they were measured to cost.
Json judged(const emq::Scores& scores, const emq::Benchmark& benchmark,
            std::span<const std::size_t> places) {
  std::vector<double> predicted, measured;
  for (const std::size_t i : places) {
    predicted.push_back(emq::score_of(scores, benchmark.plans[i]));
    measured.push_back(benchmark.kl[i]);
  }
  const auto [low, high] = emq::spearman_interval(predicted, measured, 1);
  return {{"spearman", emq::spearman(predicted, measured)}, {"interval_95", {low, high}}};
}

}  // namespace

int search_emq(Context& context) {
  SearchArgs given;
  if (!parse(context, given)) return 0;
  require_writable(given.output);
  const models::SourceModel source = models::open_source(given.source);
  const emq::Benchmark benchmark =
      emq::only_widths(emq::benchmark_from_json(models::read_text(given.bench)),
                       {given.widths.begin(), given.widths.end()});
  const Halves halves = halves_of(benchmark);
  if (halves.test.size() < 4)
    throw Error(ExitCode::kUsage, "too few plans of these widths (expected 8 or more, found " +
                                      std::to_string(benchmark.plans.size()) + ")");
  quant::CorpusOptions corpus_options;
  corpus_options.path = given.calibration;
  const quant::Corpus corpus = quant::make_corpus(source, corpus_options);
  emq::TermOptions term_options;
  term_options.widths = benchmark.widths;
  term_options.threads = static_cast<int>(given.threads);
  quant::Method method;  // as mq_bench.py rounds
  method.rounding = quant::Rounding::kNearest;
  method.group = 64;
  method.grid = kernels::Grid::kAsym;
  method.rule = quant::ScaleRule::kAbsMax;
  context.signals.watch();
  const auto terms = with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    return emq::measure_terms(source, corpus.windows, method, term_options, progress);
  });
  require_same_model(benchmark, terms);
  emq::EvolveOptions options;
  options.mode = *quant::value_of(emq::kModes, given.mode);
  options.population = static_cast<int>(given.population);
  options.iterations = static_cast<int>(given.iterations);
  options.seed = static_cast<uint64_t>(given.seed);
  options.diversity = !given.no_diversity;
  options.screening = !given.no_screening;
  options.threads = term_options.threads;
  const auto report = with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
    return emq::evolve(terms, benchmark, halves.train, options, [&](int iteration, double best) {
      return !progress ||
             progress({"evolve", fmt::format("{:.3f}", best), iteration, options.iterations});
    });
  });
  const emq::Scores scores = emq::scores_of(report.best, terms, benchmark.widths);
  Json json = {{"schema", "crumb.emq/1"},
               {"proxy", Json::parse(emq::to_json(report.best))},
               {"falls", report.falls},
               {"widths", given.widths},
               {"plans", benchmark.plans.size()},
               {"train_spearman", report.fitness},
               {"test", judged(scores, benchmark, halves.test)},
               {"evaluated", report.evaluated},
               {"known", report.known},
               {"rejected", report.rejected},
               {"seed", given.seed}};
  for (const emq::HandMade& proxy : emq::hand_made(terms, benchmark.widths))
    json["hand_made"][proxy.name] = judged(proxy.scores, benchmark, halves.test);
  if (!given.output.empty()) models::write_file(given.output, to_text(json));
  if (given.json) write_stdout(to_text(json));
  if (given.quiet) return 0;
  note("{} · Spearman {:.3f} on the {} plans learned from, {:.3f} on the {} others\n",
       emq::formula(report.best), report.fitness, halves.train.size(),
       json["test"]["spearman"].get<double>(), halves.test.size());
  for (const auto& [name, value] : json["hand_made"].items())
    note("  {:<24} {:.3f}\n", name, value["spearman"].get<double>());
  return 0;
}

}  // namespace crumb::apps

#include "quant/quantize.h"

#include <filesystem>
#include <map>

#include "apps/output.h"
#include "apps/progress.h"
#include "apps/quantize_args.h"
#include "apps/quantize_check.h"
#include "apps/verbs.h"
#include "engine/memory.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/text.h"
#include "models/vision_source.h"
#include "quant/budget.h"
#include "quant/calibrated_job.h"
#include "quant/calibration_cache.h"
#include "quant/corpus.h"
#include "quant/cost_journal.h"
#include "quant/matrix_widths.h"
#include "quant/need.h"
#include "quant/parallel.h"
#include "quant/presets.h"
#include "quant/pruning.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kHeldOut = 2;      // windows kept back from the calibration text
constexpr double kEfficiency = 0.5;  // of a job against its matrix products alone

// A report or checkpoint never replaces anything by accident, and the source never at all.
void refuse_overwrite(const std::string& path, const QuantizeArgs& given) {
  std::error_code error;
  if (fs::equivalent(path, given.source, error))
    throw Error(ExitCode::kUsage, "output and source are the same file (" + path + ")",
                "choose another -o FILE");
  if (fs::is_regular_file(path, error) && !given.force)
    throw Error(ExitCode::kUsage, "file exists (" + path + ")", "--force replaces it");
}

// `bands` are those of all matrices that the text stands for.
std::string bits_text(const models::MatrixPlan& matrix, int64_t columns,
                      const std::vector<models::Band>& bands) {
  if (matrix.bits == 32) return "F32";
  return fmt::format("{} {} {}", models::widths_text(bands),
                     matrix.group == columns ? "row" : fmt::format("g{}", matrix.group),
                     quant::grid_name(matrix.grid));
}

// "model.layers.7.mlp.up_proj" -> "mlp.up_proj": the kind of tensor that a row of the table stands
// for.
std::string kind_of(const models::TensorInfo& tensor) {
  constexpr std::string_view kTower = "vision.layers.";
  if (tensor.name.starts_with(kTower))
    return "vision " + tensor.name.substr(tensor.name.find('.', kTower.size()) + 1);
  if (tensor.layer < 0) return tensor.name;
  return tensor.name.substr(models::layer_tensor(tensor.layer, "").size());
}

std::string plan_table(const quant::Plan& plan, bool every) {
  struct Kind {
    int64_t count = 0, bytes = 0;
    const quant::PlanRow* first = nullptr;
    std::vector<models::Band> bands;
    double weights = 0;
  };
  std::vector<std::string> order;
  std::map<std::string, Kind> kinds;
  for (const auto& row : plan.rows) {
    const std::string name = every ? row.tensor.name : kind_of(row.tensor);
    Kind& kind = kinds[name];
    if (kind.count == 0) order.push_back(name);
    if (kind.count == 0) kind.first = &row;
    kind.count += 1;
    kind.bytes += row.bytes;
    kind.weights += 8.0 * static_cast<double>(row.bytes) / row.bpw;
    const auto bands = models::bands_of(row.matrix, row.tensor.shape[0]);
    kind.bands.insert(kind.bands.end(), bands.begin(), bands.end());
  }
  Table table({"tensor", ">n", "shape", "stored", ">bytes", ">bpw"});
  for (const auto& name : order) {
    const Kind& kind = kinds[name];
    table.add({name, std::to_string(kind.count), shape_text(kind.first->tensor.shape),
               bits_text(kind.first->matrix, kind.first->tensor.shape.back(), kind.bands),
               std::to_string(kind.bytes),
               fmt::format("{:.3f}", 8.0 * static_cast<double>(kind.bytes) / kind.weights)});
  }
  return table.text();
}

void show_plan(const quant::Plan& plan, const models::SourceModel& source,
               const quant::QuantizeOptions& options, const QuantizeArgs& given) {
  note("source: {} ({}, {}): losses are against it\n", one_line(source.config.name),
       one_line(source.description), human_bytes(static_cast<double>(source.file_bytes)));
  note("{}", plan_table(plan, given.verbose));
  note("plan: {} in tensors · linear {:.3f} bpw · head {:.3f} bits · total {:.3f} bpw\n",
       human_bytes(static_cast<double>(plan.bytes)), plan.linear_bpw, plan.head_bits,
       plan.total_bpw);
  const models::Rotation& rotation = options.linear.rotation;
  note("inputs: {}\n", rotation.hadamard > 0
                           ? fmt::format("rotated, random signs (seed {}) and Hadamard "
                                         "blocks of {}",
                                         rotation.seed, rotation.hadamard)
                           : "not rotated");
  if (!source.config.tied_head)
    note("embedding: a lookup, for the head is one of its own: rounded to nearest, scales by {}\n",
         quant::name_of(quant::kScaleRules, options.embedding.rule));
}

quant::CostOptions cost_options_of(const QuantizeArgs& given) { return {given.output_windows, 1}; }

// What the widths' costs are kept in until the job is done; none for a dry run.
std::optional<quant::CostJournal> cost_journal(const models::SourceModel& source,
                                               const QuantizeArgs& given,
                                               const quant::QuantizeOptions& options) {
  if (given.dry_run) return std::nullopt;
  return quant::CostJournal(given.output + ".costs", source, options, cost_options_of(given),
                            print_notice);
}

// Widths of the blocks' matrices by the target, and what they are expected to cost.
void allocate(const models::SourceModel& source, const QuantizeArgs& given,
              const quant::CostJournal* journal, Signals& signals,
              quant::QuantizeOptions* options) {
  const quant::CostOptions cost_options = cost_options_of(given);
  std::vector<quant::MatrixCosts> costs;
  try {
    costs = with_progress(!given.quiet, signals, [&](const ProgressFn& progress) {
      return quant::measure_model(source, *options, cost_options, journal, progress);
    });
  } catch (const Stopped&) {
    if (journal != nullptr)
      print_notice("what was measured is in " + given.output +
                   ".costs: the same command goes on from there");
    throw;
  }
  const auto report = quant::fit_budget(source, costs, {given.target_bpw, given.target_size},
                                        *quant::value_of(quant::kGranularities, given.granularity),
                                        cost_options, options);
  if (given.quiet) return;
  std::string uniform;
  for (std::size_t i = 0; i < quant::kWidths.size(); ++i)
    uniform += fmt::format("{}INT{} {:.3f} bpw {:.4f}", i == 0 ? "" : ", ", quant::kWidths[i],
                           report.uniform_bpw[i], report.uniform_loss[i]);
  note(
      "allocation: {:.4f} bpw ({:.2f} % below the target) · predicted {:.4f} nats (at least "
      "{:.4f}; all alike: {})\n",
      report.linear_bpw,
      100 * (1 - static_cast<double>(report.widths.bytes) / static_cast<double>(report.budget)),
      report.widths.loss, report.widths.bound, uniform);
  note(
      "equal-loss gain of real widths: by matrix {:.3f}, by 32 rows {:.3f}, by 64 columns {:.3f} "
      "(predictions are second order and add up errors: they rank, they do not measure)\n",
      report.gains.tensors, report.gains.strips, report.gains.columns);
}

// The rule other than BAQ that widths are chosen by, if there is one.
std::optional<quant::WidthRuleOptions> width_rule(const models::ModelConfig& config,
                                                  const QuantizeArgs& given) {
  const auto* rule = quant::value_of(quant::kWidthRules, given.allocate);
  if (rule == nullptr) return std::nullopt;
  quant::WidthRuleOptions options;
  options.rule = *rule;
  options.widths.assign(given.widths.begin(), given.widths.end());
  options.seed = static_cast<uint64_t>(given.allocate_seed);
  if (given.target_tps > 0)
    options.time =
        quant::time_costs(config, read_text(given.latency), given.latency, given.target_tps);
  if (*rule != quant::WidthRule::kEmq) return options;
  if (given.proxy.empty())
    throw Error(ExitCode::kUsage, "--allocate emq needs --proxy FILE",
                "crumb search emq makes one");
  const Json json = Json::parse(models::read_text(given.proxy), nullptr, false);
  if (!json.is_object() || !json.contains("proxy") || !json["proxy"].is_object())
    throw Error(ExitCode::kUsage,
                "no proxy in " + given.proxy + " (expected what crumb search emq writes)");
  options.proxy = quant::emq::proxy_from_json(json["proxy"].dump());
  options.falls = json.value("falls", false);
  return options;
}

// Widths of the blocks' matrices by a rule.
void allocate_by_rule(const models::SourceModel& source, const QuantizeArgs& given,
                      const quant::WidthRuleOptions& rule, Signals& signals,
                      quant::QuantizeOptions* options) {
  const auto report = with_progress(!given.quiet, signals, [&](const ProgressFn& progress) {
    return quant::choose_by_rule(source, {given.target_bpw, given.target_size}, rule, options,
                                 progress);
  });
  if (given.quiet) return;
  std::string counts;
  for (const int bits : rule.widths)
    counts += fmt::format("{}{} at INT{}", counts.empty() ? "" : ", ",
                          std::ranges::count(report.bits, bits), bits);
  note("allocation ({}): {:.4f} bpw ({:.2f} % below the target), matrices {} · {:.1f} s\n",
       given.allocate, report.linear_bpw,
       100 * (1 - static_cast<double>(report.cost) / static_cast<double>(report.budget)), counts,
       report.seconds);
}

// What learning did to the blocks, and how fast it was.
void show_reconstruction(const quant::QuantizeReport& report) {
  double ratio = 0, speed = 0;
  int64_t improved = 0;
  const auto blocks = std::ssize(report.reconstruction);
  for (const quant::ReconstructReport& block : report.reconstruction) {
    ratio += (block.improved ? block.loss_end / block.loss_start : 1) / static_cast<double>(blocks);
    speed += block.tokens_per_second / static_cast<double>(blocks);
    improved += block.improved ? 1 : 0;
  }
  note(
      "reconstruction: loss of the windows kept back {:.3f} x on average, {} of {} blocks improved "
      "(the others keep their start), {:.0f} tokens/s a block\n",
      ratio, improved, blocks, speed);
}

// What crumb search apq found: what stays, and the widths of its matrices.
struct ApqPlan {
  quant::Pruning pruning;
  std::map<std::string, int> bits;
  std::string allocation;  // for the recipe
};

ApqPlan read_apq_plan(const std::string& file, double limit) {
  const auto fail = [&](const std::string& what) {
    throw FormatError("invalid plan (" + file + ": expected " + what + ")",
                      "crumb search apq makes one");
  };
  const Json json = Json::parse(read_text(file), nullptr, false);
  if (!json.is_object() || !json.contains("limits") || !json["limits"].is_array())
    fail("what crumb search apq writes");
  const Json* found = nullptr;
  for (const Json& one : json["limits"]) {
    if (!one.is_object() || !one.contains("limit") || !one["limit"].is_number()) fail("limits");
    if (limit == 0 ? json["limits"].size() == 1
                   : std::abs(one["limit"].get<double>() - limit) < 1e-9)
      found = &one;
  }
  if (found == nullptr) fail("one limit, or the one that --plan-limit names");
  const Json::json_pointer where("/joint/plan");
  if (!found->contains(where) || !found->at(where).is_object()) fail("a plan of pruning and bits");
  const Json& plan = found->at(where);
  if (!plan.contains("pruning") || !plan.contains("bits") || !plan["bits"].is_object())
    fail("a plan of pruning and bits");
  ApqPlan result;
  result.pruning = quant::pruning_from_json(plan["pruning"].dump(), file);
  for (const auto& [name, bits] : plan["bits"].items()) {
    if (!bits.is_number_integer()) fail("whole numbers of bits");
    result.bits[name] = bits.get<int>();
  }
  result.allocation = Json{{"method", "apq"}, {"limit", (*found)["limit"]}}.dump();
  return result;
}

Json plan_json(const quant::Plan& plan, const models::SourceModel& source) {
  Json tensors = Json::array();
  for (const auto& row : plan.rows) {
    const bool packed = row.matrix.bits != 32;
    tensors.push_back({{"name", row.tensor.name},
                       {"shape", row.tensor.shape},
                       {"bits", quant::stored_bits(row)},
                       {"group", packed ? row.matrix.group : 0},
                       {"grid", packed ? quant::grid_name(row.matrix.grid) : "none"},
                       {"bytes", row.bytes}});
  }
  return {{"schema", "crumb.quantize-plan/1"},
          {"source", source.description},
          {"bytes", plan.bytes},
          {"linear_bpw", plan.linear_bpw},
          {"head_bits", plan.head_bits},
          {"total_bpw", plan.total_bpw},
          {"tensors", std::move(tensors)}};
}

// What the job is made of, from the command line or a recipe.
struct Job {
  quant::QuantizeOptions options;
  std::optional<quant::Recipe::Text> text;  // a recipe's
  quant::CalibrationWindows held_out;
};

// Parts that a plan or a recipe leaves out are taken out of `source`.
Job make_job(const QuantizeArgs& given, models::SourceModel* model) {
  Job job;
  models::SourceModel& source = *model;
  if (given.recipe.empty()) {
    std::optional<ApqPlan> plan;
    if (!given.plan.empty()) {
      plan = read_apq_plan(given.plan, given.plan_limit);
      source = quant::prune(source, plan->pruning);
    }
    job.options = quantize_options(given, source.config);
    if (plan) {
      job.options.pruning = plan->pruning;
      if (job.options.linear.bits != 32) job.options.bits = plan->bits;
      job.options.allocation = plan->allocation;
    }
    return job;
  }
  quant::Recipe recipe = quant::parse_recipe(read_text(given.recipe), given.recipe);
  if (recipe.options.pruning) source = quant::prune(source, *recipe.options.pruning);
  if (recipe.source_hash != source.hash)
    print_notice("the recipe was made for another source (" + recipe.source_hash + ")");
  job.options = std::move(recipe.options);
  job.options.threads = thread_count(given.model);
  job.options.source_path = given.source;
  job.text = std::move(recipe.calibration);
  return job;
}

// The calibration text of a job that needs one, and the text kept back from it.
void read_calibration(const QuantizeArgs& given, const models::SourceModel& source, Job* job) {
  quant::CorpusOptions options;
  options.path = given.calibration;
  options.windows = job->text ? job->text->windows : given.windows;
  options.S = job->text ? job->text->length : given.window;
  options.seed = job->text ? job->text->seed : static_cast<uint64_t>(given.calibration_seed);
  options.held_out = kHeldOut;
  if (job->text && job->text->source != quant::kDefaultCorpus && given.calibration.empty())
    throw Error(
        ExitCode::kUsage,
        "the recipe needs its calibration text (expected " + job->text->source + ", found none)",
        "--calib FILE");
  quant::Corpus corpus = quant::make_corpus(source, options);
  if (job->text && corpus.hash != job->text->hash)
    throw Error(ExitCode::kUsage, "another calibration text than the recipe's (" +
                                      job->text->source + ": expected hash " + job->text->hash +
                                      ", found " + corpus.hash + ")");
  std::string name = given.calibration.empty() ? quant::kDefaultCorpus
                                               : fs::path(given.calibration).filename().string();
  if (job->text) name = job->text->source;
  if (!given.quiet)
    note("calibration: {}, {} windows of {} tokens\n", name, corpus.windows.count(), options.S);
  quant::CalibrationText text;
  text.windows = std::move(corpus.windows);
  text.source = std::move(name);
  text.seed = options.seed;
  job->options.calibration = std::move(text);
  job->held_out = std::move(corpus.held_out);
}

// Says what the job will take; throws Error(kMemory) if that is over the ceiling.
void estimate_need(const QuantizeArgs& given, const models::SourceModel& source, const Job& job,
                   bool target) {
  const models::ModelConfig& config = source.config;
  quant::QuantizeNeed need = quant::quantize_need(config, job.options, {});
  const auto rule = width_rule(config, given);
  if (target && rule)
    need.bytes = std::max(need.bytes, quant::width_rule_need(config, job.options, *rule));
  else if (target)
    need = quant::both(quant::allocation_need(config, job.options, cost_options_of(given)), need);
  need.bytes += static_cast<int64_t>(source.file_bytes) + program_bytes(config);
  const auto bytes = static_cast<double>(need.bytes);
  if (given.memory > 0 && need.bytes > given.memory)
    throw Error(ExitCode::kMemory,
                fmt::format("quantization needs about {} (--mem: expected at most {})",
                            human_bytes(bytes), human_bytes(static_cast<double>(given.memory))),
                "fewer threads (-t 1) or --calib-windows need less");
  if (given.quiet) return;
  std::string time;
  if (need.operations > 0)
    time = fmt::format(
        ", {}", human_seconds(need.operations / (kEfficiency * quant::measure_rate() *
                                                 quant::resolve_threads(job.options.threads))));
  note("needs: about {} of memory{}\n", human_bytes(bytes), time);
}

// Statistics behind quantized blocks are of one job alone, and not kept.
std::optional<quant::CalibrationCache> calibration_cache(const QuantizeArgs& given,
                                                         const models::SourceModel& source,
                                                         const quant::QuantizeOptions& options) {
  if (given.cache.empty()) return {};
  if (options.prefix || !options.calibration)
    throw Error(ExitCode::kUsage, "--calib-cache needs --calib-inputs full and a calibrated method",
                "what lies behind quantized blocks is another job's no more");
  return quant::CalibrationCache(given.cache, source, options.calibration->windows);
}

quant::QuantizeReport run_job(const QuantizeArgs& given, Context& context,
                              const models::SourceModel& source, const Job& job, bool calibrated) {
  const auto cache = calibration_cache(given, source, job.options);
  try {
    return with_progress(!given.quiet, context.signals, [&](const ProgressFn& progress) {
      return quant::quantize(source, job.options, given.output,
                             {{}, print_notice, progress, cache ? &*cache : nullptr});
    });
  } catch (const Stopped&) {
    if (calibrated)
      print_notice("finished blocks are in " + given.output +
                   ".journal: the same command goes on from there");
    throw;
  }
}

void finish(const QuantizeArgs& given, const models::SourceModel& source,
            const quant::QuantizeReport& report, const std::optional<eval::KlResult>& check) {
  Json json = Json::parse(quant::to_json(report, source));
  if (check) json["check"] = check_json(*check, gate_of(given));
  const std::string text = json.dump() + "\n";
  models::write_file(given.report, text);
  if (given.json) write_stdout(text);
  if (given.quiet) return;
  note("wrote {} ({}, {:.3f} bpw) in {:.1f} s, peak memory {} · report: {}\n", given.output,
       human_bytes(static_cast<double>(report.file_bytes)), report.plan.total_bpw, report.seconds,
       human_bytes(static_cast<double>(report.peak_rss_bytes)), given.report);
  if (check) show_check(*check);
}

}  // namespace

int quantize(Context& context) {
  QuantizeArgs given;
  if (!parse(context, given)) return 0;
  if (!given.dry_run) {
    refuse_overwrite(given.output, given);
    refuse_overwrite(given.report, given);
  }
  models::SourceModel source = models::open_source(given.source);
  if (!given.vision.empty()) models::add_vision(given.vision, given.projector, &source);
  if (given.vision_bits && !source.config.vision)
    throw Error(ExitCode::kUsage, "--vision-bits is for a model that sees (" + given.source +
                                      ": expected a vision tower, found none)");
  Job job = make_job(given, &source);
  const bool target = given.target_bpw > 0 || given.target_size > 0 || given.target_tps > 0;
  std::optional<quant::CostJournal> costs;
  if (target) {
    read_calibration(given, source, &job);
    estimate_need(given, source, job, target);
    if (const auto rule = width_rule(source.config, given)) {
      allocate_by_rule(source, given, *rule, context.signals, &job.options);
    } else {
      costs = cost_journal(source, given, job.options);
      allocate(source, given, costs ? &*costs : nullptr, context.signals, &job.options);
    }
  }
  const quant::Plan plan = quant::make_plan(source.config, job.options);
  if (!given.quiet) show_plan(plan, source, job.options, given);
  const bool calibrated = quant::needs_calibration(source.config, job.options, {});
  if (!target && (calibrated || given.gate || given.check_windows.value_or(0) > 0))
    read_calibration(given, source, &job);
  if (!calibrated) job.options.calibration.reset();
  if (!target) estimate_need(given, source, job, target);
  if (given.dry_run) {
    if (given.json) write_stdout(to_text(plan_json(plan, source)));
    return 0;
  }
  const auto report = run_job(given, context, source, job, calibrated);
  if (costs) costs->remove();
  if (!given.quiet && !report.reconstruction.empty()) show_reconstruction(report);
  const auto check = check_quality(given, context, source, job.held_out, calibrated);
  finish(given, source, report, check);
  if (check && check->mean_kld > gate_of(given))
    reject(given.output, check->mean_kld, gate_of(given),
           "more bits, another method or a larger --gate");
  return 0;
}

}  // namespace crumb::apps

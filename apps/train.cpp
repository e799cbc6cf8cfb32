#include <csignal>
#include <filesystem>
#include <optional>

#include "apps/bench_report.h"
#include "apps/output.h"
#include "apps/quantize_check.h"
#include "apps/train_args.h"
#include "apps/train_report.h"
#include "apps/verbs.h"
#include "models/errors.h"
#include "quant/need.h"
#include "quant/parallel.h"
#include "quant/train/cpu_distiller.h"
#include "quant/train/process_group.h"
#include "quant/train/student.h"
#include "quant/train/text_writer.h"
#include "quant/train/train_job.h"
#include "quant/train/train_need.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;
using namespace quant::train;

// Of a job against its matrix products alone, at the rate of one product in cache.
constexpr double kEfficiency = 0.5;

struct Inputs {
  models::SourceModel teacher, source;         // source: `start` in full precision
  std::optional<models::SourceModel> masters;  // empty: the teacher
  models::Checkpoint start;
  TrainText text;
};

void go_on(Context& context) {
  if (const int number = context.signals.pending(); number != 0) throw Stopped{number};
}

void refuse_overwrite(const TrainArgs& given, const TrainRecipe& recipe) {
  std::error_code error;
  for (const std::string& input : {recipe.teacher, recipe.start, recipe.masters})
    if (!input.empty() && fs::equivalent(given.output, input, error))
      throw Error(ExitCode::kUsage, "output and input are the same file (" + given.output + ")",
                  "choose another -o FILE");
  if (fs::is_regular_file(given.output, error) && !given.force)
    throw Error(ExitCode::kUsage, "file exists (" + given.output + ")", "--force replaces it");
}

// Opens everything the recipe names; the hash of it goes into the recipe or must be the one there.
Inputs open_inputs(Context& context, TrainRecipe* recipe) {
  Inputs in{models::open_source(recipe->teacher),
            models::open_source(recipe->start),
            {},
            models::Checkpoint::open(recipe->start),
            TrainText{TokenData(recipe->window), {}, {}, {}}};
  if (!recipe->masters.empty()) in.masters = models::open_source(recipe->masters);
  go_on(context);
  if (recipe->window > in.teacher.config.context)
    throw Error(ExitCode::kUsage,
                fmt::format("training recipe (window: expected at most {}, the model's context, "
                            "found {})",
                            in.teacher.config.context, recipe->window));
  in.text = read_train_text(*recipe, in.teacher);
  go_on(context);
  if (in.text.data.windows() == 0 && recipe->generated_windows() < recipe->step_windows())
    throw FormatError("training text is too short (expected one window, found none)",
                      "give more text or a shorter window");
  if (recipe->gate > 0 && in.text.kept_back.empty())
    throw Error(ExitCode::kUsage, "a gate needs kept-back text (recipe: kept_back or longer text)");
  const std::string hash =
      inputs_hash(in.teacher, in.source, in.masters ? in.masters->hash : "", in.text);
  if (!recipe->inputs.empty() && recipe->inputs != hash)
    throw Error(ExitCode::kUsage,
                "other models or text than the recipe's (inputs: expected " + recipe->inputs +
                    ", found " + hash + ")",
                "without \"inputs\" the recipe takes what its paths name");
  recipe->inputs = hash;
  return in;
}

int64_t kept_windows(const TrainRecipe& recipe, const Inputs& in) {
  return std::ssize(in.text.kept_back) / recipe.window;
}

// Says what the job will take; throws Error(kMemory) if that is over the ceiling.
Json plan(const TrainArgs& given, const TrainRecipe& recipe, const Inputs& in, int64_t from_step) {
  const int threads = quant::resolve_threads(thread_count(given.model));
  const TrainNeed need = train_need(in.teacher.config, recipe, kept_windows(recipe, in), threads);
  const auto bytes = static_cast<double>(need.bytes);
  if (given.memory > 0 && need.bytes > given.memory)
    throw Error(ExitCode::kMemory,
                fmt::format("training needs about {} (--mem: expected at most {})",
                            human_bytes(bytes), human_bytes(static_cast<double>(given.memory))),
                "fewer threads (-t 1) or shorter windows need less");
  const auto at_once = static_cast<double>(std::min<int64_t>(threads, recipe.step_windows()));
  const double rate = kEfficiency * quant::measure_rate() * at_once;
  const double step = (need.step + need.generation) / rate, evaluation = need.evaluation / rate;
  const double seconds = step * static_cast<double>(recipe.steps - from_step) +
                         evaluation * static_cast<double>(evaluations(recipe, from_step));
  const int64_t tokens = recipe.step_windows() * recipe.window;
  const int64_t read = recipe.step_windows() - recipe.generated_windows();  // of a step
  if (!given.quiet) {
    note("teacher: {} ({}), computed in f32\n", one_line(in.teacher.config.name),
         one_line(in.teacher.description));
    note("text: {} windows of {} tokens, {} kept back · {} steps of {} tokens ({:.2f} epochs)\n",
         in.text.data.windows(), recipe.window, kept_windows(recipe, in), recipe.steps, tokens,
         static_cast<double>(recipe.steps * read) /
             static_cast<double>(std::max<int64_t>(in.text.data.windows(), 1)));
    if (recipe.generate)
      note("the teacher writes {} of the {} windows of every step, none of them twice\n",
           recipe.generated_windows(), recipe.step_windows());
    if (recipe.noise && recipe.noise->input_bits != 0)
      note(
          "inputs: INT{} at truncations that are learned but not stored: the engine quantizes them "
          "by token\n",
          recipe.noise->input_bits);
    note(
        "needs: about {} of memory, {} for steps and evaluations ({:.1f} s a step, {:.0f} "
        "tokens/s)\n",
        human_bytes(bytes), human_seconds(seconds), step, static_cast<double>(tokens) / step);
  }
  return {{"event", "plan"},
          {"schema", "crumb.train/1"},
          {"teacher", in.teacher.description},
          {"windows", in.text.data.windows()},
          {"kept_windows", kept_windows(recipe, in)},
          {"step_tokens", tokens},
          {"steps", recipe.steps},
          {"from_step", from_step},
          {"memory_bytes", need.bytes},
          {"step_seconds", step},
          {"seconds", seconds},
          {"recipe", Json::parse(to_json(recipe))}};
}

// The saved run to go on from, if there is one.
std::optional<TrainingFile> found_state(const TrainArgs& given, const TrainRecipe& recipe,
                                        const Student& student) {
  std::string from = given.state_prefix();
  std::optional<TrainingFile> found = load_full(from);
  if (!found && !given.from_compact.empty()) {
    from = given.from_compact;
    found = load_compact(from, student);
  }
  if (found && !same_run(recipe_from_json(found->place.recipe, from), recipe))
    throw Error(ExitCode::kUsage, "training state of another recipe (" + from + ")",
                "give the recipe and files it was made with, or another --state");
  return found;
}

void remove_state(const TrainArgs& given) {
  std::error_code error;
  for (const char* end : {".a", ".b"}) fs::remove(given.state_prefix() + end, error);
}

std::optional<eval::KlResult> check(const TrainArgs& given, const TrainRecipe& recipe,
                                    Context& context, const Inputs& in) {
  eval::Windows text;
  text.size = recipe.window;
  text.ids = in.text.kept_back;
  text.count = std::min(given.check_windows, kept_windows(recipe, in));
  if (text.count == 0 || text.size < 2) return std::nullopt;
  return divergence(context, in.teacher, given.output, text, given.model, given.quiet);
}

// Writes, checks and judges what was trained.
void finish(const TrainArgs& given, const TrainRecipe& recipe, Context& context, const Inputs& in,
            Json result) {
  const auto quality = check(given, recipe, context, in);
  if (quality) result["check"] = check_json(*quality, recipe.gate);
  result["peak_rss_bytes"] = peak_rss();
  if (given.json) write_stdout(result.dump() + "\n");
  if (!given.quiet) {
    note("wrote {} ({}), peak memory {}\n", given.output,
         human_bytes(result["file_bytes"].get<double>()),
         human_bytes(static_cast<double>(peak_rss())));
    if (quality) show_check(*quality);
  }
  if (quality && recipe.gate > 0 && quality->mean_kld > recipe.gate)
    reject(given.output, quality->mean_kld, recipe.gate, "more steps, more text or a larger gate");
}

// The teacher once more, in the engine, writing text as the recipe says.
WriteRows teacher_writer(const TrainRecipe& recipe, const Inputs& in, const CpuOptions& options) {
  LoadOptions load;
  load.threads = options.threads;
  load.pin = false;  // the trainer's threads work on the same cores between its rows
  return [&recipe, &in, progress = options.progress,
          engine = Engine::from_source(in.teacher, load)](int64_t row, int64_t rows) {
    return write_text(engine, *in.text.script, sampling_of(recipe), row, rows, recipe.window,
                      progress);
  };
}

// Trains from `place` on; false if it stopped before the end, saved.
TrainEnd run_job(const TrainArgs& given, const TrainRecipe& recipe, const Inputs& in,
                 Context& context, Student& student, TrainingPlace& place,
                 const std::optional<TrainingFile>& found, AllReduce* group) {
  TrainReporter reporter(!given.quiet, given.json, student.layout.masters, context.signals);
  reporter.resume(place.step);
  CpuOptions options;
  options.threads = thread_count(given.model);
  options.progress = [&](const Progress& progress) { return reporter.within(progress); };
  options.group = group;
  const auto distiller = make_cpu_distiller(in.teacher, in.source, student, recipe.window, options);
  student.parameters = {};  // they are the distiller's now
  if (found) distiller->set_state(found->state);
  go_on(context);
  TrainJob job;
  job.recipe = recipe;
  job.text = &in.text;
  job.costs = width_costs(recipe, student.parts);
  const bool first = group == nullptr || group->rank() == 0;
  if (first) job.state_prefix = given.state_prefix();
  job.group = group;
  job.seconds = given.seconds;
  job.stop = [&] { return reporter.stopped(); };
  job.report = [&](const TrainProgress& progress) { reporter.after(progress); };
  if (recipe.generate) job.write = teacher_writer(recipe, in, options);
  const TrainEnd end = train(job, *distiller, place);
  if (end == TrainEnd::kStopped && given.compact.empty()) return end;  // no time for copies
  const TrainingState state = distiller->state();
  if (first && !given.compact.empty()) save_compact(given.compact, student, {place, state});
  student.parameters = state.parameters;
  apply_widths(state.widths, &student);
  return end;
}

}  // namespace

int train(Context& context) {
  TrainArgs given;
  if (!parse(context, given)) return 0;
  TrainRecipe recipe = train_recipe(given);
  if (!given.dry_run) refuse_overwrite(given, recipe);
  context.signals.watch();  // MPI starts threads
  std::unique_ptr<AllReduce> group = quant::train::join_process_group();
  const bool first = group == nullptr || group->rank() == 0;
  if (!first) {  // one of a group speaks
    given.quiet = true;
    given.json = false;
  }
  const Inputs in = open_inputs(context, &recipe);
  Student student = student_from(in.start, in.masters ? *in.masters : in.teacher,
                                 thread_count(given.model), recipe.embedding_rate > 0);
  if (recipe.noise) quant::train::require_rows(student, "NIPQ's noise");
  go_on(context);
  const auto found = given.output.empty() ? std::nullopt : found_state(given, recipe, student);
  TrainingPlace place;
  if (found) place = found->place;
  place.recipe = to_json(recipe);
  const Json planned = plan(given, recipe, in, place.step);
  if (given.json) write_stdout(planned.dump() + "\n");
  if (given.dry_run) return 0;
  if (found && !given.quiet)
    note("goes on at step {}{}\n", place.step,
         place.moments_from == place.step && place.step > 0 ? " with a new optimiser" : "");
  const int64_t from = place.step;
  const auto start = std::chrono::steady_clock::now();
  const TrainEnd end = run_job(given, recipe, in, context, student, place, found, group.get());
  group.reset();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (end == TrainEnd::kStopped) {
    if (first)
      print_notice(
          fmt::format("stopped at step {}: the same command goes on from there", place.step));
    // Nothing pending: another process of the group was asked.
    throw Stopped{std::max(context.signals.pending(), SIGINT)};
  }
  if (!first) return 0;
  Json result = {{"event", "result"},
                 {"end", end == TrainEnd::kDone ? "done" : "out_of_time"},
                 {"step", place.step},
                 {"steps", recipe.steps},
                 {"tokens", place.cursor * recipe.window},
                 {"seconds", seconds},
                 {"steps_now", place.step - from}};
  if (end == TrainEnd::kOutOfTime) {
    if (given.json) write_stdout(result.dump() + "\n");
    if (!given.quiet)
      note("out of time at step {} of {}: the same command goes on from there\n", place.step,
           recipe.steps);
    return 0;
  }
  result["file_bytes"] =
      export_student(student, in.start, stage_json(recipe, place, in.teacher, "f32"), given.output,
                     thread_count(given.model));
  finish(given, recipe, context, in, std::move(result));
  if (given.own_state()) remove_state(given);
  return 0;
}

}  // namespace crumb::apps

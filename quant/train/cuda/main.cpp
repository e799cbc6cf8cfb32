// crumb-train-cuda: Distill-QAT on one NVIDIA GPU.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>

#include "models/errors.h"
#include "models/json.h"
#include "models/text.h"
#include "models/tiny_model.h"
#include "quant/quantize.h"
#include "quant/train/cuda/bench.h"
#include "quant/train/cuda/cuda_distiller.h"
#include "quant/train/cuda/generate.h"
#include "quant/train/cuda/multi_distiller.h"
#include "quant/train/train_job.h"

namespace crumb::quant::train::cuda {
namespace {

namespace fs = std::filesystem;
using models::read_text;

volatile std::sig_atomic_t stop_signal = 0;

struct Args {
  std::string teacher, start, masters, recipe, state, compact, from_compact, output, script;
  std::string shape = "smollm2-135m";
  CudaOptions cuda;
  GenerateOptions generate;
  int steps = 20, gpus = 1;
  double seconds = 0;
};

struct Shape {
  const char *name, *architecture;
  int64_t layers, dim, ffn, heads, kv_heads, head_dim, vocab;
};
constexpr Shape kShapes[] = {
    {"smollm2-135m", "llama", 30, 576, 1536, 9, 3, 64, 49152},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 4864, 14, 2, 64, 151936},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936},
};

// A random model of a known one's shape and its INT2 start, to measure with.
void make_random_model(Args& args) {
  const auto* known = std::ranges::find(kShapes, args.shape, &Shape::name);
  if (known == std::end(kShapes))
    throw Error(ExitCode::kUsage,
                "--shape (expected smollm2-135m, qwen2.5-0.5b or qwen2.5-1.5b, "
                "found " +
                    args.shape + ")");
  models::TinyOptions shape;
  shape.architecture = known->architecture;
  shape.qkv_bias = shape.architecture == "qwen2";
  shape.layers = known->layers;
  shape.dim = known->dim;
  shape.ffn = known->ffn;
  shape.heads = known->heads;
  shape.kv_heads = known->kv_heads;
  shape.head_dim = known->head_dim;
  shape.vocab = known->vocab;
  const fs::path folder = fs::temp_directory_path();
  args.start = (folder / "crumb_bench_start.crumb").string();
  QuantizeOptions options;
  options.linear.bits = 2;
  for (Method* method : {&options.linear, &options.embedding}) {
    method->group = 0;
    method->rule = ScaleRule::kAbsMax;
    method->rotation = {64, 1};
  }
  options.head = options.embedding;
  args.teacher = args.start;
  quantize(models::tiny_model(shape), options, args.start, {});
}

struct Loaded {
  models::SourceModel teacher, source;
  models::Checkpoint start;
  Student student;
};
// `embedding`: it is trained.
Loaded load(const Args& args, bool embedding) {
  Loaded loaded{models::open_source(args.teacher),
                models::open_source(args.start),
                models::Checkpoint::open(args.start),
                {}};
  loaded.student =
      args.masters.empty()
          ? student_from(loaded.start, loaded.teacher, 0, embedding)
          : student_from(loaded.start, models::open_source(args.masters), 0, embedding);
  return loaded;
}

int bench(Args& args) {
  if (args.teacher.empty()) make_random_model(args);
  std::cout << device_name() << '\n';
  const Loaded loaded = load(args, false);
  bench_operations(loaded.student.config, args.cuda, std::cout);
  const auto distiller = make_distiller(loaded.teacher, loaded.source, loaded.student, args.cuda);
  bench_steps(*distiller, loaded.student.config, args.cuda, args.steps, std::cout);
  return 0;
}

void print(const TrainProgress& p) {
  if (p.changed_codes < 0) return;  // every report_every steps
  nlohmann::ordered_json line = {{"step", p.step},
                                 {"of", p.steps},
                                 {"tokens", p.tokens},
                                 {"loss", p.last.loss},
                                 {"kl", p.last.kl},
                                 {"top1", p.last.top1},
                                 {"gradient_norm", p.last.gradient_norm},
                                 {"changed_codes", p.changed_codes},
                                 {"tokens_per_second", static_cast<int64_t>(p.tokens_per_second)},
                                 {"seconds_left", static_cast<int64_t>(p.seconds_left)}};
  if (p.last.width_cost > 0) line["width_cost"] = p.last.width_cost;
  if (p.kept_back.kl >= 0) {
    line["kept_kl"] = p.kept_back.kl;
    line["kept_top1"] = p.kept_back.top1;
  }
  std::cout << line.dump() << std::endl;
}

// "2" or "2 to 4".
std::string bit_range(const Student& student) {
  const auto [least, most] = std::ranges::minmax(student.forms, {}, &MatrixForm::bits);
  const std::string text = std::to_string(least.bits);
  return least.bits == most.bits ? text : text + " to " + std::to_string(most.bits);
}

int train_verb(Args& args) {
  TrainRecipe recipe = recipe_from_json(read_text(args.recipe), args.recipe);
  if (args.masters.empty()) args.masters = recipe.masters;
  recipe.masters = args.masters;
  if (args.gpus < 1 || recipe.batch % args.gpus != 0)
    throw Error(ExitCode::kUsage, "--gpus (expected a divisor of the recipe's batch, found " +
                                      std::to_string(args.gpus) + ")");
  args.cuda.B = recipe.batch / args.gpus;
  args.cuda.S = recipe.window;
  Loaded loaded = load(args, recipe.embedding_rate > 0);
  if (recipe.noise) require_rows(loaded.student, "NIPQ's noise");
  const auto distiller =
      args.gpus == 1 ? make_distiller(loaded.teacher, loaded.source, loaded.student, args.cuda)
                     : make_multi_distiller(loaded.teacher, loaded.source, loaded.student,
                                            args.cuda, args.gpus);
  TrainingPlace place;
  place.recipe = to_json(recipe);
  const auto found = args.state.empty() ? std::nullopt : load_full(args.state);
  if (found || !args.from_compact.empty()) {
    const TrainingFile from = found ? *found : load_compact(args.from_compact, loaded.student);
    if (!same_run(recipe_from_json(from.place.recipe), recipe))
      throw Error(
          ExitCode::kUsage,
          "training state of another recipe (" + (found ? args.state : args.from_compact) + ")",
          "give the recipe it was made with, or another --state");
    place = from.place;
    distiller->set_state(from.state);
    std::cout << "resumed at step " << place.step << (found ? "" : " with a new optimiser")
              << std::endl;
  }
  std::cout << device_name() << "\nteacher: " << loaded.teacher.config.name << " ("
            << loaded.teacher.description << ", computed in bf16)\nstudent: INT"
            << bit_range(loaded.student) << ", Hadamard " << loaded.student.rotation.hadamard
            << ", " << loaded.student.layout.masters << " weights trained around " << args.start
            << (args.masters.empty() ? "" : ", masters from ") << args.masters << std::endl;
  if (recipe.noise && recipe.noise->input_bits != 0)
    std::cout << "inputs: INT" << recipe.noise->input_bits
              << " at truncations that are learned but not stored: the engine quantizes them by "
                 "token"
              << std::endl;
  const TrainText text = read_train_text(recipe, loaded.teacher);
  const TrainJob job{recipe,
                     &text,
                     args.state,
                     args.seconds,
                     [] { return stop_signal != 0; },
                     print,
                     nullptr,
                     width_costs(recipe, loaded.student.parts),
                     text.script
                         ? make_row_writers(loaded.teacher, *text.script, sampling_of(recipe),
                                            (recipe.generate->rows + args.gpus - 1) / args.gpus,
                                            recipe.window, args.gpus)
                         : WriteRows{}};
  if (recipe.generate)
    std::cout << "the teacher writes " << recipe.generated_windows() << " of the "
              << recipe.step_windows() << " windows of every step" << std::endl;
  const TrainEnd end = train(job, *distiller, place);
  if (!args.compact.empty())
    std::cout << "compact state in "
              << save_compact(args.compact, loaded.student, {place, distiller->state()})
              << " pieces" << std::endl;
  if (!args.output.empty()) {
    const TrainingState state = distiller->state();
    loaded.student.parameters = state.parameters;
    apply_widths(state.widths, &loaded.student);
    const uint64_t bytes =
        export_student(loaded.student, loaded.start,
                       stage_json(recipe, place, loaded.teacher, "bf16"), args.output);
    std::cout << "wrote " << args.output << " (" << bytes << " bytes)" << std::endl;
  }
  std::cout << (end == TrainEnd::kDone        ? "done"
                : end == TrainEnd::kOutOfTime ? "out of time"
                                              : "stopped")
            << " at step " << place.step << std::endl;
  return end == TrainEnd::kStopped ? 128 + static_cast<int>(stop_signal) : 0;
}

int export_verb(Args& args) {
  const auto found = args.state.empty() ? std::nullopt : load_full(args.state);
  if (!found && args.from_compact.empty())
    throw Error(ExitCode::kUsage, "no training state (" + args.state + ")");
  const TrainRecipe recipe =
      recipe_from_json(found ? found->place.recipe : compact_place(args.from_compact).recipe);
  Loaded loaded = load(args, recipe.embedding_rate > 0);
  const TrainingFile from = found ? *found : load_compact(args.from_compact, loaded.student);
  loaded.student.parameters = from.state.parameters;
  apply_widths(from.state.widths, &loaded.student);
  export_student(loaded.student, loaded.start,
                 stage_json(recipe, from.place, loaded.teacher, "bf16"), args.output);
  return 0;
}

int generate_verb(const Args& args) {
  const models::SourceModel model = models::open_source(args.teacher);
  const TextScript script = script_from_json(read_text(args.script), model.config.vocab);
  std::cout << device_name() << std::endl;
  const GenerateReport report =
      generate(model, script, args.generate, args.output, [](int64_t rows, double speed) {
        std::cout << rows << " rows, " << static_cast<int64_t>(speed) << " tokens/s" << std::endl;
      });
  std::cout << "wrote " << report.rows << " rows of " << args.generate.length << " tokens to "
            << args.output << ", " << report.duplicates << " duplicates left out, "
            << report.seconds << " s\n";
  return 0;
}

void add_models(CLI::App& verb, Args& args, bool required) {
  auto* teacher = verb.add_option("--teacher", args.teacher, "float model: .gguf or .crumb");
  auto* start = verb.add_option("--start", args.start, "packed .crumb the student starts from");
  verb.add_option("--masters", args.masters,
                  "model whose weights the masters start from, such as an INT4 form (default: the "
                  "teacher)");
  teacher->required(required);
  start->required(required);
}

int run(int argc, char** argv) {
  Args args;
  CLI::App app("Distillation-based quantization-aware training on an NVIDIA GPU.");
  app.require_subcommand(1);
  auto* bench_app = app.add_subcommand("bench", "time a step and its operations");
  add_models(*bench_app, args, false);
  bench_app->add_option("--shape", args.shape,
                        "of a random model without --teacher: smollm2-135m, qwen2.5-0.5b, "
                        "qwen2.5-1.5b");
  bench_app->add_option("--batch", args.cuda.B, "windows of a step");
  bench_app->add_option("--window", args.cuda.S, "tokens of a window");
  bench_app->add_option("--steps", args.steps, "steps to time");
  auto* train_app = app.add_subcommand("train", "run or resume a recipe");
  add_models(*train_app, args, true);
  train_app->add_option("--gpus", args.gpus, "how many GPUs share every batch");
  train_app->add_option("--recipe", args.recipe, "JSON")->required();
  train_app->add_option("--state", args.state, "prefix of the state files; resumed from if there");
  train_app->add_option("--seconds", args.seconds, "save and stop after this long");
  train_app->add_option("--compact", args.compact, "prefix of a compact state written at the end");
  train_app->add_option("--from-compact", args.from_compact, "start from such a state");
  train_app->add_option("-o,--output", args.output, "student checkpoint written at the end");
  for (auto* verb : {bench_app, train_app}) {
    verb->add_option("--chunk", args.cuda.chunk, "tokens whose logits are held at a time");
    verb->add_option("--tune", args.cuda.tune, "time that many algorithms of every product");
  }
  auto* export_app = app.add_subcommand("export", "student checkpoint of a saved state");
  add_models(*export_app, args, true);
  export_app->add_option("--state", args.state, "prefix of the state files");
  export_app->add_option("--from-compact", args.from_compact, "prefix of a compact state");
  export_app->add_option("-o,--output", args.output, "checkpoint to write")->required();
  auto* generate_app = app.add_subcommand("generate", "text by a model, as token ids");
  GenerateOptions& g = args.generate;
  generate_app->add_option("--teacher", args.teacher, "model: .gguf or .crumb")->required();
  generate_app->add_option("--script", args.script, "JSON: prefixes, headers, end")->required();
  generate_app->add_option("--rows", g.rows, "rows in all");
  generate_app->add_option("--batch", g.batch, "rows at once");
  generate_app->add_option("--length", g.length, "tokens of a row");
  generate_app->add_option("--first-row", g.first_row, "number of the first row");
  generate_app->add_option("--temperature", g.sampling.temperature, "0: most likely token");
  generate_app->add_option("--min-p", g.sampling.min_p, "least share of the likeliest token");
  generate_app->add_option("--seed", g.sampling.seed, "of prefixes and tokens");
  generate_app->add_option("--tune", g.tune, "time that many algorithms of every product");
  generate_app->add_option("-o,--output", args.output, "token file to write")->required();
  CLI11_PARSE(app, argc, argv);
  for (const int signal : {SIGINT, SIGTERM})
    std::signal(signal, [](int number) { stop_signal = number; });
  if (*bench_app) return bench(args);
  if (*train_app) return train_verb(args);
  if (*generate_app) return generate_verb(args);
  return export_verb(args);
}

}  // namespace
}  // namespace crumb::quant::train::cuda

int main(int argc, char** argv) {
  try {
    return crumb::quant::train::cuda::run(argc, argv);
  } catch (const crumb::Error& error) {
    std::cerr << "crumb-train-cuda: error: " << error.what() << '\n';
    if (!error.hint().empty()) std::cerr << "hint: " << error.hint() << '\n';
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << "crumb-train-cuda: error: " << error.what() << '\n';
    return static_cast<int>(crumb::ExitCode::kInternal);
  }
}

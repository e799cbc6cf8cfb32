#include "apps/train_args.h"

#include "apps/output.h"
#include "apps/quantize_args.h"
#include "models/errors.h"

namespace crumb::apps {

bool parse(Context& context, TrainArgs& given) {
  Args args(context,
            "Distill a packed student from its float teacher, on the CPU. The recipe is JSON: "
            "\"teacher\", \"start\", \"text\" (files, plain or JSONL of chats), \"data\" (token "
            "files), \"kept_back\", \"batch\", \"window\", \"accumulate\", \"steps\", \"rate\", "
            "\"loss\" and others (quant/train/README.md).");
  args.text("--recipe", given.recipe, "FILE", "the job");
  args.text("--teacher", given.teacher, "FILE", "float model, .gguf or .crumb (recipe: teacher)");
  args.text("--start", given.start, "FILE",
            "packed .crumb whose codes the student starts from (recipe: start)");
  args.text("--masters", given.masters, "FILE",
            "model whose weights the masters start from, such as an INT4 form (recipe: masters; "
            "default: the teacher)");
  args.text("-o,--output", given.output, "FILE", "the trained checkpoint");
  args.integer("--steps", given.steps, 1, INT64_MAX, "steps of the whole job (recipe: steps)");
  args.real("--seconds", given.seconds, 0, 1e9,
            "save and stop after this long; the same command goes on");
  args.text("--state", given.state, "PREFIX",
            "states in PREFIX.a and .b, gone on from if there (default: OUTPUT.state, removed at "
            "the end)");
  args.text("--compact", given.compact, "PREFIX",
            "at the end also a compact state in pieces of 16 MiB, without the optimiser's moments");
  args.text("--from-compact", given.from_compact, "PREFIX",
            "go on from such a state with a new optimiser, where there is no full one");
  args.real("--gate", given.gate, 0, 100,
            "refuse a result (exit 7, kept as OUTPUT.rejected) whose divergence from the teacher "
            "on kept-back text is above this (recipe: gate; 0: none)");
  args.integer("--check-windows", given.check_windows, 0, 1 << 20,
               "windows of that text, through the engine (default 2)");
  args.option("--mem", "SIZE", "refuse (exit 5) what would need more memory than this, e.g. 24G",
              [&given](const std::string& s) { given.memory = parse_size(s, "--mem"); });
  args.integer("-t,--threads", given.model.threads, 1, 1024,
               "windows worked on at once (the result does not depend on it)");
  args.flag("--dry-run", given.dry_run, "say what it would take and stop");
  args.flag("--force", given.force, "replace an existing output");
  args.flag("--json", given.json, "JSONL on stdout: plan, progress, result");
  args.flag("-q,--quiet", given.quiet, "no plan, no progress");
  args.example("crumb train --recipe distill.json --dry-run");
  args.example("crumb train --recipe distill.json --teacher t.gguf --start s.crumb -o out.crumb");
  if (!args.parse()) return false;
  if (given.recipe.empty())
    throw Error(ExitCode::kUsage, "no recipe given (--recipe FILE)",
                "quant/train/README.md describes recipes");
  if (given.output.empty() && !given.dry_run)
    throw Error(ExitCode::kUsage, "no output given (-o FILE)", "--dry-run needs none");
  return true;
}

quant::train::TrainRecipe train_recipe(const TrainArgs& given) {
  auto recipe = quant::train::recipe_from_json(read_text(given.recipe), given.recipe);
  if (!given.teacher.empty()) recipe.teacher = given.teacher;
  if (!given.start.empty()) recipe.start = given.start;
  if (!given.masters.empty()) recipe.masters = given.masters;
  if (given.steps) recipe.steps = *given.steps;
  if (given.gate) recipe.gate = *given.gate;
  const auto require = [&](bool there, const char* what, const char* option) {
    if (!there)
      throw Error(
          ExitCode::kUsage,
          fmt::format("training recipe ({}: expected a {}, found none)", given.recipe, what),
          fmt::format("{} FILE names it", option));
  };
  require(!recipe.teacher.empty(), "teacher", "--teacher");
  require(!recipe.start.empty(), "start", "--start");
  if (recipe.warmup >= recipe.steps)
    throw Error(
        ExitCode::kUsage,
        fmt::format("training recipe ({}: warmup: expected less than steps, found {} of {})",
                    given.recipe, recipe.warmup, recipe.steps));
  return recipe;
}

}  // namespace crumb::apps

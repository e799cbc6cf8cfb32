#include <filesystem>

#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "models/errors.h"
#include "models/export.h"
#include "models/source.h"

namespace crumb::apps {
namespace {

namespace fs = std::filesystem;

struct ConvertArgs {
  std::string source, output, to, type = "f32";
  bool force = false, quiet = false;
};

bool parse(Context& context, ConvertArgs& given) {
  Args args(
      context.program,
      "Write a model (.crumb, .gguf or a Hugging Face folder) for other programs, as floats.");
  args.positional("SRC", given.source, true, "the model to read");
  args.text("-o,--output", given.output, "PATH", "the .gguf file, or the folder, to write");
  args.choice("--to", given.to, {"gguf", "hf"},
              "a GGUF file, or a Hugging Face folder (default: by the output's name)");
  args.choice("--type", given.type, {"f32", "f16"},
              "of matrices: f32 is exact, f16 rounds (default f32)");
  args.flag("--force", given.force, "replace what is there");
  args.flag("-q,--quiet", given.quiet, "no remarks");
  args.example("crumb convert model.crumb -o model.gguf --type f16");
  return args.parse(context.args);
}

}  // namespace

int convert(Context& context) {
  ConvertArgs given;
  if (!parse(context, given)) return 0;
  if (given.output.empty())
    throw Error(ExitCode::kUsage, "no output named (expected -o PATH, found nothing)");
  if (given.to.empty()) given.to = given.output.ends_with(".gguf") ? "gguf" : "hf";
  std::error_code none;
  if (fs::exists(given.output, none)) {
    if (fs::equivalent(given.source, given.output, none))
      throw Error(ExitCode::kUsage, "source and output are the same: " + given.output);
    if (!given.force && (given.to == "gguf" || !fs::is_empty(given.output, none)))
      throw Error(ExitCode::kUsage, "the output exists: " + given.output, "--force replaces it");
  }
  const models::SourceModel source = models::open_source(given.source);
  const auto type = given.type == "f16" ? models::FloatType::kF16 : models::FloatType::kF32;
  if (given.to == "gguf") {
    models::write_gguf(source, given.output, type);
  } else {
    std::error_code error;
    fs::create_directories(given.output, error);
    if (error) throw IoError("cannot make folder (" + given.output + ": " + error.message() + ")");
    models::write_hugging_face(source, given.output, type);
  }
  if (!given.quiet)
    note("wrote {} ({}; {})\n", given.output,
         type == models::FloatType::kF32 ? "matrices F32, exact" : "matrices rounded to F16",
         "from " + source.description);
  return 0;
}

}  // namespace crumb::apps

#include <fmt/format.h>

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
  Args args(context, "Write a model (.crumb, .gguf or a Hugging Face folder) for other programs.");
  args.positional("SRC", given.source, true, "the model to read");
  args.text("-o,--output", given.output, "PATH", "the .gguf file, or the folder, to write");
  args.choice("--to", given.to, {"gguf", "hf"},
              "a GGUF file, or a Hugging Face folder (default: by the output's name)");
  args.choice("--type", given.type, {"f32", "f16", "packed", "q4_1"},
              "of matrices: f32 is exact, f16 rounds; packed writes those of a .crumb file that a "
              "block type of GGUF holds exactly as such, q4_1 also those it holds with rounded "
              "offsets, the others as f16 (default f32)");
  args.flag("--force", given.force, "replace what is there");
  args.flag("-q,--quiet", given.quiet, "no remarks");
  args.example("crumb convert model.crumb -o model.gguf --type f16");
  return args.parse();
}

models::BlockUse blocks_of(const ConvertArgs& given, const models::SourceModel& source) {
  if (given.type != "packed" && given.type != "q4_1") return models::BlockUse::kNone;
  if (!source.packed)
    throw Error(ExitCode::kUsage, "--type " + given.type + " is for packed matrices (expected a " +
                                      ".crumb file, found " + given.source + ")");
  return given.type == "packed" ? models::BlockUse::kExact : models::BlockUse::kQ4_1;
}

// "matrices 30 F16, 180 Q4_0; 30 rounded, by at most 1.2e-05".
std::string text_of(const models::ExportSummary& summary) {
  std::string text = "matrices";
  for (const auto& [type, count] : summary.matrices)
    text += fmt::format("{} {} {}", text.ends_with('s') ? "" : ",", count, type);
  if (summary.rounded == 0) return text + ", exact";
  return text +
         fmt::format("; {} rounded, by at most {:.2g}", summary.rounded, summary.largest_error);
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
  const auto type = given.type == "f32" ? models::FloatType::kF32 : models::FloatType::kF16;
  std::string made =
      type == models::FloatType::kF32 ? "matrices F32, exact" : "matrices rounded to F16";
  if (given.to == "gguf") {
    made = text_of(models::write_gguf(source, given.output, type, blocks_of(given, source)));
  } else {
    if (given.type == "packed" || given.type == "q4_1")
      throw Error(ExitCode::kUsage,
                  "--type " + given.type + " is for GGUF files (expected --to gguf, found hf)");
    std::error_code error;
    fs::create_directories(given.output, error);
    if (error) throw IoError("cannot make folder (" + given.output + ": " + error.message() + ")");
    models::write_hugging_face(source, given.output, type);
  }
  if (!given.quiet) note("wrote {} ({}; from {})\n", given.output, made, source.description);
  return 0;
}

}  // namespace crumb::apps

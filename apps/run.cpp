#include <unistd.h>

#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/verbs.h"
#include "engine/chat.h"
#include "engine/vision/encoder.h"
#include "models/errors.h"
#include "models/mapped_file.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxPromptBytes = 64 << 20;
constexpr int64_t kMaxSchemaBytes = 1 << 20;

struct RunArgs {
  ModelArgs model;
  SamplingArgs sampling;
  std::string prompt, file, system, schema, schema_file, image;
  bool raw = false, quiet = false, json = false;
};

bool parse(Context& context, RunArgs& run) {
  Args args(context, "Answer one prompt. The answer alone goes to stdout.");
  args.positional("PROMPT", run.prompt, false, "the prompt; without it -f FILE or stdin");
  args.text("-f,--file", run.file, "FILE", "read the prompt from FILE, - is stdin");
  add_model(args, run.model);
  add_session(args, run.model);
  add_sampling(args, run.sampling);
  args.text("--system", run.system, "TEXT", "system message (also -sys)");
  args.text("--image", run.image, "FILE",
            "a PNG or JPEG file that the prompt is about; the model must see");
  args.text("-j,--json-schema", run.schema, "SCHEMA",
            "hold the answer to this JSON schema; {} is any value");
  args.text("--json-schema-file", run.schema_file, "FILE", "the same from a file (also -jf)");
  args.flag("--raw", run.raw, "continue the text as it is, without the chat template");
  args.flag("-q,--quiet", run.quiet, "nothing on stderr but errors");
  args.flag("--json", run.json, "one JSON object instead of the text");
  args.example("crumb run \"Why is the sky blue?\"");
  args.example("echo Hello | crumb run -n 32 --temp 0");
  if (!args.parse()) return false;
  if (!run.prompt.empty() && !run.file.empty())
    throw Error(ExitCode::kUsage, "two prompts given (PROMPT and --file: expected one)");
  if (run.raw && !run.system.empty())
    throw Error(ExitCode::kUsage, "--system needs the chat template that --raw leaves out");
  if (run.raw && !run.image.empty())
    throw Error(ExitCode::kUsage, "--image needs the chat template that --raw leaves out");
  if (!run.schema.empty() && !run.schema_file.empty())
    throw Error(ExitCode::kUsage, "two schemas given (-j and --json-schema-file: expected one)");
  return true;
}

std::string prompt_text(const RunArgs& run) {
  std::string prompt = run.prompt;
  if (!run.file.empty()) {
    prompt = read_text(run.file, kMaxPromptBytes);
  } else if (prompt.empty() || prompt == "-") {
    if (prompt.empty() && is_terminal(STDIN_FILENO))
      throw Error(ExitCode::kUsage, "no prompt",
                  "crumb run \"PROMPT\", or -f FILE, or a text on stdin");
    prompt = read_text("-", kMaxPromptBytes);
  }
  // A file or a pipe ends its text with a line feed that nobody means to say.
  if (prompt != run.prompt && !run.raw && prompt.ends_with('\n')) prompt.pop_back();
  if (prompt.empty()) throw Error(ExitCode::kUsage, "the prompt is empty");
  return prompt;
}

// Null if no schema was given.
std::shared_ptr<const JsonGrammar> grammar_of(const RunArgs& run) {
  if (run.schema.empty() && run.schema_file.empty()) return nullptr;
  const std::string text =
      run.schema_file.empty() ? run.schema : read_text(run.schema_file, kMaxSchemaBytes);
  const Json schema = Json::parse(text, nullptr, false);
  if (schema.is_discarded())
    throw Error(ExitCode::kUsage, "the schema is not valid JSON (--json-schema)");
  try {
    return JsonGrammar::from_schema(schema);
  } catch (const SchemaError& error) {
    throw Error(ExitCode::kUsage,
                fmt::format("the schema cannot be kept to (--json-schema at '{}': {})",
                            error.pointer(), error.what()));
  }
}

// The rows of the image that was given, if one was.
std::vector<ImageRows> image_rows(const RunArgs& run, const Engine& engine) {
  if (run.image.empty()) return {};
  const models::MappedFile file(run.image);
  return {vision::look(engine, vision::decode_image(file.bytes(), run.image))};
}

struct Answer {
  GenerateResult result;
  int64_t dropped_bytes = 0, position = 0, context = 0;
};

Answer answer(const RunArgs& run, const std::shared_ptr<const Engine>& engine,
              const std::string& prompt, const GenerateOptions& options,
              const std::function<bool(std::string_view)>& on_text) {
  Answer answer;
  if (run.raw) {
    const auto session = engine->make_session(session_options(run.model));
    tokenizer::EncodeReport report;
    const auto ids = engine->tokenizer().encode(prompt, true, &report);
    answer.result = generate(*session, *engine, ids, options, on_text);
    answer.dropped_bytes = report.dropped_bytes;
    answer.position = session->position();
    answer.context = session->context();
    return answer;
  }
  Chat chat(engine, session_options(run.model));
  if (!run.system.empty()) chat.messages().push_back({"system", run.system});
  answer.result = chat.say(prompt, options, on_text, image_rows(run, *engine));
  answer.dropped_bytes = chat.dropped_bytes();
  answer.position = chat.session().position();
  answer.context = chat.session().context();
  return answer;
}

Json json_of(const Answer& answer, const GenerateOptions& options, const Engine& engine) {
  const GenerateResult& result = answer.result;
  const double per_second = tokens_per_second(result);
  return {{"schema", "crumb.run/1"},
          {"text", result.text},
          {"ids", result.ids},
          {"finish_reason", finish_name(result.reason)},
          {"seed", options.sampling.seed},
          {"prompt_tokens", result.prompt_tokens},
          {"completion_tokens", result.ids.size()},
          {"dropped_bytes", answer.dropped_bytes},
          {"timings",
           {{"prompt_n", result.prompt_tokens},
            {"prompt_ms", result.prompt_seconds * 1e3},
            {"first_token_ms", result.first_token_seconds * 1e3},
            {"predicted_n", result.ids.size()},
            {"predicted_ms", result.decode_seconds * 1e3},
            {"predicted_per_second", per_second}}},
          {"model", engine.info().name},
          {"weights", engine.info().weights},
          {"isa", engine.backend().name},
          {"threads", engine.thread_plan().threads}};
}

}  // namespace

int run(Context& context) {
  RunArgs given;
  if (!parse(context, given)) return 0;
  const std::string prompt = prompt_text(given);
  const auto grammar = grammar_of(given);
  context.signals.watch();
  const auto engine = load_engine(given.model);
  GenerateOptions options = generate_options(given.sampling, *engine);
  options.grammar = grammar;
  options.on_prefill = [&](int64_t, int64_t) { return context.signals.pending() == 0; };
  const auto on_text = [&](std::string_view piece) {
    if (!given.json) write_answer(piece);
    return context.signals.pending() == 0;
  };
  const Answer answered = answer(given, engine, prompt, options, on_text);
  const GenerateResult& result = answered.result;
  if (given.json) {
    write_stdout(to_text(json_of(answered, options, *engine)));
  } else if (!result.text.ends_with('\n') && (!given.raw || is_terminal(STDOUT_FILENO))) {
    write_stdout("\n");
  }
  if (!given.quiet) {
    note("[{} tok · first {:.2f} s · {:.1f} tok/s · ctx {}/{} · seed {} · {}]\n", result.ids.size(),
         result.first_token_seconds, tokens_per_second(result), answered.position, answered.context,
         options.sampling.seed, finish_name(result.reason));
    if (answered.dropped_bytes > 0)
      note("crumb: warning: {} bytes dropped that the vocabulary cannot hold\n",
           answered.dropped_bytes);
  }
  if (const int signal = context.signals.pending(); signal != 0) throw Stopped{signal};
  return 0;
}

}  // namespace crumb::apps

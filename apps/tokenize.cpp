#include <charconv>
#include <limits>

#include "apps/model_args.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/verbs.h"
#include "engine/vocab_tokenizer.h"
#include "models/checkpoint.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/source.h"
#include "models/tokenizer_files.h"
#include "tokenizer/tokenizer.h"

namespace crumb::apps {
namespace {

struct TokenizeArgs {
  ModelArgs model;
  std::string text, input, output, decode;
  bool no_special = false, json = false, quiet = false;
};

bool parse(Context& context, TokenizeArgs& given) {
  Args args(context, "Text to token ids and back.");
  args.positional("TEXT", given.text, false, "the text; without it stdin");
  args.text("-m,--model", given.model.path, "FILE",
            "model, or a bare tokenizer.json or tokenizer.model (default: the first of the model "
            "folders)");
  args.text("--input", given.input, "FILE",
            "JSONL: {\"id\", \"text\"} a line, or \"hex\" for bytes that are no UTF-8");
  args.text("-o,--output", given.output, "FILE",
            "JSONL to write: {\"id\", \"ids\"} a line (default stdout)");
  args.flag("--no-special", given.no_special, "the spelling of a special token is plain text");
  args.text("--decode", given.decode, "IDS", "print the text of token ids: 1,2,3");
  args.flag("--json", given.json, "one JSON object with ids and pieces");
  args.flag("-q,--quiet", given.quiet, "no remarks");
  args.example("crumb tokenize \"Hello world\"");
  if (!args.parse()) return false;
  if (!given.text.empty() + !given.input.empty() + !given.decode.empty() > 1)
    throw Error(ExitCode::kUsage, "TEXT, --input and --decode exclude each other");
  return true;
}

// Only the vocabulary is wanted: a checkpoint's weights are not even touched. A bare
// tokenizer.model takes the spelling of control tokens as text, as its library does.
models::Vocab load_vocab(const std::string& path, bool& no_special) {
  if (auto bare = models::open_tokenizer_file(path)) {
    no_special = no_special || bare->plain_text_only;
    return std::move(bare->vocab);
  }
  if (models::is_checkpoint(path)) return models::Checkpoint::open(path).vocab();
  return models::open_source(path).vocab;
}

Json json_line(const std::string& line, int64_t number, const std::string& path) {
  const auto refuse = [&](const std::string& why) {
    throw FormatError(fmt::format("invalid line ({}: line {}: {})", path, number, why));
  };
  Json json = Json::parse(line, nullptr, false);
  if (json.is_discarded()) refuse("expected a JSON object");
  if (!json.is_object() || !json.contains("id") ||
      !json.value(json.contains("hex") ? "hex" : "text", Json()).is_string())
    refuse("expected an object with \"id\" and a text \"text\", or bytes \"hex\"");
  if (json.contains("hex") && json["hex"].get<std::string>().size() % 2 != 0)
    refuse("expected an even number of hexadecimal digits");
  return json;
}

// Bytes that are no UTF-8 cannot stand in JSON: such a line has them as hexadecimal digits.
std::string text_of(const Json& line) {
  if (!line.contains("hex")) return line["text"].get<std::string>();
  const auto digits = line["hex"].get<std::string>();
  std::string bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    uint8_t byte = 0;
    const auto [end, error] = std::from_chars(&digits[i], &digits[i] + 2, byte, 16);
    if (error != std::errc() || end != &digits[i] + 2)
      throw FormatError(fmt::format("invalid hex (line {}: expected hexadecimal digits, found {})",
                                    to_text(line["id"], -1), digits.substr(i, 2)));
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

struct Encoded {
  int64_t lines = 0, tokens = 0, dropped_bytes = 0;
};

Encoded encode_lines(const TokenizeArgs& given, const tokenizer::Tokenizer& tokenizer,
                     std::string& out) {
  Encoded done;
  const std::string text = read_text(given.input);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    done.lines += 1;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json json = json_line(line, done.lines, given.input);
    tokenizer::EncodeReport report;
    const auto ids = tokenizer.encode(text_of(json), !given.no_special, &report);
    done.dropped_bytes += report.dropped_bytes;
    done.tokens += std::ssize(ids);
    out += to_text({{"id", json["id"]}, {"ids", ids}}, -1);
  }
  return done;
}

void encode_text(const TokenizeArgs& given, const tokenizer::Tokenizer& tokenizer) {
  if (given.text.empty() && is_terminal(0))
    throw Error(ExitCode::kUsage, "no text", "crumb tokenize TEXT");
  const std::string text = given.text.empty() ? read_text("-") : given.text;
  tokenizer::EncodeReport report;
  const auto ids = tokenizer.encode(text, !given.no_special, &report);
  if (given.json) {
    Json pieces = Json::array();
    for (const int32_t id : ids) pieces.push_back(std::string(tokenizer.bytes(id)));
    write_stdout(to_text({{"schema", "crumb.tokenize/1"},
                          {"ids", ids},
                          {"pieces", std::move(pieces)},
                          {"dropped_bytes", report.dropped_bytes}}));
  } else {
    write_stdout(fmt::format("{}\n", fmt::join(ids, " ")));
  }
  if (report.dropped_bytes > 0)
    note("crumb: warning: {} bytes dropped that the vocabulary cannot hold\n",
         report.dropped_bytes);
}

void decode(const TokenizeArgs& given, const tokenizer::Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (const int64_t id : parse_list(given.decode, 0, tokenizer.size() - 1, "--decode"))
    ids.push_back(static_cast<int32_t>(id));
  write_stdout(tokenizer.decode(ids, !given.no_special) + "\n");
}

}  // namespace

int tokenize(Context& context) {
  TokenizeArgs given;
  if (!parse(context, given)) return 0;
  const auto tokenizer = tokenizer_of(load_vocab(model_path(given.model), given.no_special));
  if (!given.decode.empty()) {
    decode(given, *tokenizer);
  } else if (given.input.empty()) {
    encode_text(given, *tokenizer);
  } else {
    std::string out;
    const Encoded done = encode_lines(given, *tokenizer, out);
    if (given.output.empty()) {
      write_stdout(out);
    } else {
      models::write_file(given.output, out);
    }
    if (!given.quiet) note("{} lines, {} tokens\n", done.lines, done.tokens);
    if (done.dropped_bytes > 0)
      note("crumb: warning: {} bytes dropped that the vocabulary cannot hold\n",
           done.dropped_bytes);
  }
  return 0;
}

}  // namespace crumb::apps

#include "quant/corpus.h"

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>

#include "engine/engine.h"
#include "engine/vocab_tokenizer.h"
#include "models/errors.h"
#include "models/json.h"
#include "models/mapped_file.h"
#include "models/text.h"
#include "quant/calibration_cache.h"

namespace crumb::quant {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kDrillTokens = 100;  // roughly, of one generated document

[[noreturn]] void bad_line(const std::string& name, int64_t line, const std::string& found) {
  throw FormatError("invalid chat (" + name + " line " + std::to_string(line) +
                        ": expected {\"messages\": [{\"role\": text, \"content\": text}, ...]}, "
                        "found " +
                        found + ")",
                    "one JSON object a line; plain text must not start with '{'");
}

CorpusDocument parse_chat(std::string_view line, const std::string& name, int64_t number) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (json.is_discarded()) bad_line(name, number, models::printable(line, 40));
  if (json.is_object() && json.contains("text") && json["text"].is_string())
    return {json["text"].get<std::string>(), {}};
  if (!json.is_object() || !json.contains("messages") || !json["messages"].is_array() ||
      json["messages"].empty())
    bad_line(name, number, "neither text nor messages");
  CorpusDocument document;
  for (const auto& message : json["messages"]) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string() ||
        !message.contains("content") || !message["content"].is_string())
      bad_line(name, number, "a message without role or content");
    document.turns.push_back(
        {message["role"].get<std::string>(), message["content"].get<std::string>()});
  }
  return document;
}

// Documents -> token ids, by the model's own tokenizer and template.
class Encoder {
 public:
  explicit Encoder(const models::SourceModel& source)
      : source_(source), tokenizer_(tokenizer_of(source.vocab)) {}

  std::vector<int32_t> encode(const CorpusDocument& document, int64_t& dropped) {
    tokenizer::EncodeReport report;
    const auto ids = tokenizer_->encode(segments(document), &report);
    dropped += report.dropped_bytes;
    return ids;
  }

 private:
  std::vector<tokenizer::Segment> segments(const CorpusDocument& document) {
    if (document.turns.empty()) return {{document.text + "\n\n", false}};
    if (source_.chat_template.empty()) return without_template(document);
    Json variables = {{"messages", Json::array()}, {"add_generation_prompt", false}};
    for (const ChatTurn& turn : document.turns)
      variables["messages"].push_back({{"role", turn.role}, {"content", turn.content}});
    variables["bos_token"] = text_of(source_.vocab.bos);
    variables["eos_token"] = text_of(source_.vocab.eos);
    try {
      if (!template_)
        template_ = std::make_unique<tokenizer::ChatTemplate>(
            tokenizer::ChatTemplate::parse(source_.chat_template));
      return template_->render(variables);
    } catch (const tokenizer::TemplateError& error) {
      throw FormatError("chat template: " + std::string(error.what()) +
                        " (calibration chat, line " + std::to_string(error.line()) + ", column " +
                        std::to_string(error.column()) + ")");
    }
  }
  // A base model has no template: the words alone.
  static std::vector<tokenizer::Segment> without_template(const CorpusDocument& document) {
    std::string text;
    for (const ChatTurn& turn : document.turns) text += turn.content + "\n\n";
    return {{text, false}};
  }
  std::string text_of(int32_t id) const {
    return id < 0 ? std::string() : std::string(tokenizer_->bytes(id));
  }

  const models::SourceModel& source_;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer_;
  std::unique_ptr<tokenizer::ChatTemplate> template_;
};

// Fisher-Yates by mt19937_64, whose numbers the standard fixes (std::shuffle's use of them it does
// not).
template <class T>
void shuffle(std::vector<T>& items, uint64_t seed) {
  std::mt19937_64 bits(seed);
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[bits() % i]);
}

}  // namespace

std::vector<CorpusDocument> parse_corpus(std::string_view bytes, const std::string& name) {
  const auto first = bytes.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  if (bytes[first] != '{') return {{std::string(bytes), {}}};
  std::vector<CorpusDocument> documents;
  int64_t number = 0;
  while (!bytes.empty()) {
    const auto end = std::min(bytes.find('\n'), bytes.size());
    const std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos)
      documents.push_back(parse_chat(line, name, number));
  }
  return documents;
}

Corpus make_corpus(const models::SourceModel& source, const CorpusOptions& options) {
  if (options.windows < 1 || options.S < 1)
    throw Error(ExitCode::kUsage,
                "calibration windows (expected at least 1 of at least 1 token, found " +
                    std::to_string(options.windows) + " of " + std::to_string(options.S) + ")");
  std::vector<CorpusDocument> documents;
  if (options.path.empty()) {
    documents = default_corpus(options.seed,
                               (options.windows + options.held_out) * options.S / kDrillTokens + 1);
  } else {
    const models::MappedFile file(options.path);
    const auto bytes = file.bytes();
    documents =
        parse_corpus({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, options.path);
    shuffle(documents, options.seed);
  }
  Corpus corpus;
  corpus.documents = std::ssize(documents);
  Encoder encoder(source);
  std::vector<int32_t> ids;
  for (const CorpusDocument& document : documents) {
    const auto more = encoder.encode(document, corpus.dropped_bytes);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  corpus.tokens = std::ssize(ids);
  const int64_t whole = corpus.tokens / options.S;
  const int64_t held_out =
      std::clamp(whole - options.windows, std::min(options.held_out, whole / 8), options.held_out);
  const int64_t count = std::min(options.windows, whole - held_out);
  if (count == 0)
    throw FormatError("calibration text is too short (" +
                          (options.path.empty() ? std::string("default corpus") : options.path) +
                          ": expected at least " + std::to_string(options.S) + " tokens, found " +
                          std::to_string(corpus.tokens) + ")",
                      "give more text or shorter windows");
  const auto end_of = [&](int64_t windows) { return ids.begin() + windows * options.S; };
  corpus.held_out = {options.S, {end_of(count), end_of(count + held_out)}};
  ids.resize(static_cast<std::size_t>(count * options.S));
  corpus.windows = {options.S, std::move(ids)};
  corpus.hash = windows_hash(corpus.windows);
  return corpus;
}

}  // namespace crumb::quant

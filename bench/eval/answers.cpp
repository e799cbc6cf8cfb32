#include "bench/eval/answers.h"

#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "engine/chat.h"
#include "models/errors.h"
#include "models/file_writer.h"
#include "models/import.h"
#include "models/json_text.h"
#include "models/mapped_file.h"
#include "models/text.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxLineBytes = std::size_t{16} << 20;
constexpr std::chrono::seconds kSaveEvery{5};
constexpr const char* kSchema = "crumb.answers/1";

std::string hash_of(std::string_view text) {
  return models::content_hash({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

std::string hash_of(const Question& question) {
  Json turns = Json::array();
  for (const auto& turn : question.turns) turns.push_back(turn);
  return hash_of(models::json_dump(turns));
}

Json header_of(const Engine& engine, const AnswerOptions& options) {
  const models::MappedFile file(engine.info().path);
  return {{"schema", kSchema},
          {"model", models::content_hash(file.bytes())},
          {"options",
           {{"chat", options.chat},
            {"max_tokens", options.max_tokens},
            {"stop", options.stop},
            {"temperature", options.temperature},
            {"seed", options.temperature > 0 ? options.seed : 0},
            {"kv", static_cast<int>(options.kv)}}}};
}

// Finished answers by id, and the file they live in.
class Store {
 public:
  Store(std::string path, const Json& header) : path_(std::move(path)) {
    if (path_.empty()) return;
    lines_.push_back(models::json_dump(header));
    if (std::filesystem::exists(path_)) read(header);
  }

  std::optional<Answer> find(const Question& question) const {
    const auto at = known_.find(question.id);
    if (at == known_.end() || at->second.question != hash_of(question)) return std::nullopt;
    return at->second.answer;
  }

  void add(const Question& question, const Answer& answer) {
    if (path_.empty()) return;
    lines_.push_back(models::json_dump(Json{{"id", question.id},
                                            {"question", hash_of(question)},
                                            {"texts", answer.texts},
                                            {"new_tokens", answer.new_tokens},
                                            {"hit_limit", answer.hit_limit},
                                            {"dropped_bytes", answer.dropped_bytes}}));
    dirty_ = true;
    if (Clock::now() - saved_ > kSaveEvery) save();
  }

  void save() {
    if (!dirty_) return;
    models::FileWriter file(path_);
    for (const auto& line : lines_) {
      file.write(line);
      file.write("\n");
    }
    file.commit();
    dirty_ = false;
    saved_ = Clock::now();
  }

 private:
  struct Known {
    std::string question;  // hash
    Answer answer;
  };

  void read(const Json& header) {
    const std::string text = models::read_text(path_);
    std::string_view rest(text);
    for (int64_t number = 1; !rest.empty(); ++number) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      const std::string record = "line " + std::to_string(number);
      const models::JsonPlace place{path_, record};
      const auto line = models::parse_json_object(rest.substr(0, end), place, kMaxLineBytes);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (number > 1) {
        read_answer(line, place);
      } else if (models::json_dump(line) != models::json_dump(nlohmann::json(header))) {
        throw FormatError("the answers in " + path_ + " are of another model or other options (" +
                              "expected " + models::json_dump(header) + ", found " +
                              models::printable(models::json_dump(line), 400) + ")",
                          "delete the file, or name another one");
      }
    }
  }

  void read_answer(const nlohmann::json& line, const models::JsonPlace& place) {
    Known known;
    known.question = models::json_string(line, "question", place);
    const auto texts = line.find("texts");
    if (texts == line.end() || !texts->is_array())
      models::json_fail(place, "texts", "an array of strings", "something else");
    for (const auto& one : *texts) {
      if (!one.is_string()) models::json_fail(place, "texts", "strings", one.type_name());
      known.answer.texts.push_back(one.get<std::string>());
    }
    known.answer.new_tokens = models::json_int(line, "new_tokens", 0, INT64_MAX, place);
    known.answer.hit_limit = models::json_bool(line, "hit_limit", place);
    known.answer.dropped_bytes = models::json_int(line, "dropped_bytes", 0, INT64_MAX, place);
    lines_.push_back(models::json_dump(line));
    known_[models::json_string(line, "id", place)] = std::move(known);
  }

  std::string path_;
  std::vector<std::string> lines_;
  std::map<std::string, Known> known_;
  Clock::time_point saved_ = Clock::now();
  bool dirty_ = false;
};

GenerateOptions generate_options(const AnswerOptions& options, const Question& question) {
  GenerateOptions result;
  result.max_tokens = options.max_tokens;
  result.stop = options.stop;
  result.sampling.temperature = static_cast<float>(options.temperature);
  result.sampling.top_k = 0;
  result.sampling.top_p = 1;
  result.sampling.min_p = 0;
  result.sampling.seed =
      options.seed ^ std::stoull(hash_of(question.id).substr(0, 16), nullptr, 16);
  return result;
}

bool ended_early(const GenerateResult& result) {
  return result.reason == FinishReason::kLength || result.reason == FinishReason::kContext;
}

// Answers questions on one session; a question's common beginning with the last one stays cached.
class Answerer {
 public:
  Answerer(std::shared_ptr<const Engine> engine, const AnswerOptions& options)
      : engine_(std::move(engine)), options_(options) {
    SessionOptions session;
    session.kv = options.kv;
    if (options.chat) {
      chat_.emplace(engine_, session);
    } else {
      session_ = engine_->make_session(session);
    }
  }

  Answer answer(const Question& question, const std::function<bool()>& go_on) {
    GenerateOptions generation = generate_options(options_, question);
    generation.on_prefill = [&](int64_t, int64_t) { return go_on(); };
    const auto on_text = [&](std::string_view) { return go_on(); };
    Answer result;
    const auto take = [&](GenerateResult one) {
      if (one.reason == FinishReason::kCancelled) throw Interrupted{};
      result.new_tokens += std::ssize(one.ids);
      result.hit_limit = result.hit_limit || ended_early(one);
      result.texts.push_back(std::move(one.text));
    };
    if (options_.chat) {
      chat_->messages().clear();
      for (const auto& turn : question.turns) take(chat_->say(turn, generation, on_text));
      result.dropped_bytes = chat_->dropped_bytes();
      return result;
    }
    session_->truncate(0);
    tokenizer::EncodeReport report;
    const auto ids = engine_->tokenizer().encode(question.turns.front(), true, &report);
    result.dropped_bytes = report.dropped_bytes;
    take(generate(*session_, *engine_, ids, generation, on_text));
    return result;
  }

 private:
  std::shared_ptr<const Engine> engine_;
  AnswerOptions options_;
  std::optional<Chat> chat_;
  std::unique_ptr<Session> session_;
};

void check(const std::vector<Question>& questions, const AnswerOptions& options) {
  if (options.max_tokens < 1)
    throw Error(ExitCode::kUsage, "no tokens to answer with (expected max tokens of at least 1)");
  for (const auto& question : questions)
    if (question.turns.empty() || (!options.chat && question.turns.size() != 1))
      throw Error(ExitCode::kUsage,
                  "question " + question.id + " has " + std::to_string(question.turns.size()) +
                      " turns (expected " + (options.chat ? "1 or more" : "1") + ")");
}

}  // namespace

Answers answer_all(const std::shared_ptr<const Engine>& engine,
                   const std::vector<Question>& questions, const AnswerOptions& options,
                   const ProgressFn& progress) {
  check(questions, options);
  Store store(options.store, options.store.empty() ? Json() : header_of(*engine, options));
  Answers answers;
  std::optional<Answerer> answerer;  // not made if every answer is known
  const auto total = std::ssize(questions);
  for (const auto& question : questions) {
    const auto go_on = [&] {
      return !progress || progress({"answers", question.id, std::ssize(answers.list), total});
    };
    if (auto known = store.find(question)) {
      answers.list.push_back(std::move(*known));
      ++answers.reused;
      continue;
    }
    if (!answerer) answerer.emplace(engine, options);
    try {
      answers.list.push_back(answerer->answer(question, go_on));
    } catch (const Interrupted&) {
      store.save();
      throw;
    }
    store.add(question, answers.list.back());
  }
  store.save();
  return answers;
}

}  // namespace crumb::eval

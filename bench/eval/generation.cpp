#include "bench/eval/generation.h"

#include <algorithm>

#include "engine/chat.h"
#include "engine/progress.h"
#include "models/errors.h"

namespace crumb::eval {
namespace {

GenerateOptions greedy(const GenerationPlan& plan, const std::function<bool()>& keep_going) {
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.sampling.repeat_penalty = 1;
  options.max_tokens = plan.max_tokens;
  options.stop = plan.stop;
  if (keep_going) options.on_prefill = [&](int64_t, int64_t) { return keep_going(); };
  return options;
}

}  // namespace

struct AnswerWriter::State {
  std::shared_ptr<const Engine> engine;
  SessionOptions session_options;
  std::unique_ptr<Chat> chat;        // made when the first chat plan comes
  std::unique_ptr<Session> session;  // for raw plans
  std::vector<int32_t> held;         // tokens in `session`
  int64_t run = 0, reused = 0, dropped = 0;

  Answer keep(const GenerateResult& result) {
    if (result.reason == FinishReason::kCancelled) throw Interrupted{};
    run += result.prompt_tokens - result.cached_tokens + std::ssize(result.ids);
    reused += result.cached_tokens;
    return {result.text, result.reason, std::ssize(result.ids)};
  }

  GenerateResult continue_text(const std::string& text, const GenerateOptions& options,
                               const std::function<bool(std::string_view)>& on_text) {
    if (!session) session = engine->make_session(session_options);
    tokenizer::EncodeReport report;
    const auto ids = engine->tokenizer().encode(text, false, &report);
    dropped += report.dropped_bytes;
    if (ids.empty()) throw FormatError("empty prompt (expected at least one token, found none)");
    const auto same = static_cast<std::size_t>(
        std::mismatch(held.begin(), held.end(), ids.begin(), ids.end()).first - held.begin());
    const std::size_t kept = std::min(same, ids.size() - 1);
    session->truncate(static_cast<int64_t>(kept));
    held.clear();  // unknown if the next line throws
    const auto all = std::span(ids);
    GenerateResult result =
        generate(*session, *engine, all.subspan(kept), options, on_text, all.first(kept));
    result.prompt_tokens = std::ssize(ids);
    result.cached_tokens = static_cast<int64_t>(kept);
    held = ids;
    held.insert(held.end(), result.ids.begin(), result.ids.end());
    held.resize(std::min(held.size(), static_cast<std::size_t>(session->position())));
    return result;
  }
};

AnswerWriter::AnswerWriter(std::shared_ptr<const Engine> engine, kernels::KvType kv)
    : state_(new State) {
  state_->engine = std::move(engine);
  state_->session_options.kv = kv;
}
AnswerWriter::~AnswerWriter() = default;

int64_t AnswerWriter::tokens_run() const { return state_->run; }
int64_t AnswerWriter::tokens_reused() const { return state_->reused; }
int64_t AnswerWriter::dropped_bytes() const { return state_->dropped; }

std::vector<Answer> AnswerWriter::answer(const GenerationPlan& plan,
                                         const std::function<bool()>& keep_going) {
  State& s = *state_;
  const GenerateOptions options = greedy(plan, keep_going);
  const auto on_text = [&](std::string_view) { return !keep_going || keep_going(); };
  std::vector<Answer> answers;
  if (!plan.chat) {
    for (const std::string& turn : plan.turns)
      answers.push_back(s.keep(s.continue_text(turn, options, on_text)));
    return answers;
  }
  if (!s.chat) s.chat = std::make_unique<Chat>(s.engine, s.session_options);
  s.chat->messages().clear();
  for (const std::string& turn : plan.turns) {
    answers.push_back(s.keep(s.chat->say(turn, options, on_text)));
    s.dropped += s.chat->dropped_bytes();
  }
  return answers;
}

bool looped(std::string_view text) {
  constexpr std::size_t kLeast = 120, kEnd = 40, kTimes = 3;
  // Characters, not bytes: the end of the last 40.
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) starts.push_back(i);
  if (starts.size() <= kLeast) return false;
  const std::string_view end = text.substr(starts[starts.size() - kEnd]);
  std::size_t times = 0;
  for (std::size_t at = 0; (at = text.find(end, at)) != std::string_view::npos; ++at) ++times;
  return times >= kTimes;
}

}  // namespace crumb::eval

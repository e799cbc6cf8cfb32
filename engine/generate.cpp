#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "engine/json_matcher.h"
#include "engine/text_stream.h"
#include "models/errors.h"

namespace crumb {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Text on its way from tokens to the caller.
struct TextOut {
  TextStream stream;
  std::string& text;
  const std::function<bool(std::string_view)>& on_text;

  bool emit(const std::string& piece) {
    if (piece.empty()) return true;
    text += piece;
    return !on_text || on_text(piece);
  }
  bool push(std::string_view bytes) { return emit(stream.push(bytes)); }
  void finish() { emit(stream.finish()); }
};

int64_t token_limit(const Session& session, int64_t prompt, int64_t max_tokens) {
  // The last token of an answer needs no place of its own: it is sampled, not read.
  const int64_t room = session.context() - session.position() - prompt + 1;
  return max_tokens < 0 ? room : std::min(room, max_tokens);
}

// The prompt in pieces, so that a long one can be cancelled. Empty logits: it was.
std::span<const float> prefill(Session& session, std::span<const int32_t> prompt,
                               const GenerateOptions& options) {
  constexpr std::size_t kPiece = 256;
  if (!options.on_prefill) return session.forward(prompt, options.rows);
  session.require_room(std::ssize(prompt));
  std::span<const float> logits;
  for (std::size_t done = 0; done < prompt.size();) {
    if (!options.on_prefill(static_cast<int64_t>(done), std::ssize(prompt))) return {};
    const auto piece = prompt.subspan(done, std::min(kPiece, prompt.size() - done));
    logits = session.forward(piece, options.rows);
    done += piece.size();
  }
  return logits;
}

std::unique_ptr<JsonMatcher> make_matcher(const Engine& engine, const GenerateOptions& options,
                                          int64_t limit) {
  if (options.grammar == nullptr) return nullptr;
  if (options.grammar->least_bytes() > limit)
    throw Error(ExitCode::kMemory,
                "the answer could not be complete (expected at least " +
                    std::to_string(options.grammar->least_bytes()) + " tokens, found " +
                    std::to_string(limit) + ")",
                "allow more tokens (--predict), or a larger --ctx-size");
  return std::make_unique<JsonMatcher>(options.grammar, engine.tokenizer(),
                                       std::make_shared<TokenTrie>(engine.tokenizer()),
                                       engine.stop_tokens());
}

int32_t next_token(Sampler& sampler, const Session& session, std::span<const float> logits,
                   std::span<const int32_t> history, JsonMatcher* matcher, int64_t budget) {
  if (matcher == nullptr) return sampler.sample(logits, history, session.block_max());
  matcher->set_budget(budget);
  const int32_t id = sampler.sample(logits, history, session.block_max(), *matcher);
  if (id < 0 || !matcher->accept(id))
    throw Error(ExitCode::kInternal, "no token of the vocabulary fits the schema here");
  return id;
}

}  // namespace

GenerateResult generate(Session& session, const Engine& engine, std::span<const int32_t> prompt,
                        const GenerateOptions& options,
                        const std::function<bool(std::string_view)>& on_text,
                        std::span<const int32_t> before) {
  GenerateResult result;
  result.prompt_tokens = std::ssize(prompt);
  const int64_t limit = token_limit(session, std::ssize(prompt), options.max_tokens);
  Sampler sampler(options.sampling, engine.config().vocab);
  std::vector<int32_t> history;
  history.reserve(before.size() + prompt.size());
  // An image's rows are no tokens that could be said again.
  for (const auto ids : {before, prompt})
    std::copy_if(ids.begin(), ids.end(), std::back_inserter(history),
                 [](int32_t id) { return id >= 0; });
  // Nothing is allocated between two tokens: room for the whole answer is made here.
  history.reserve(history.size() + static_cast<std::size_t>(std::max<int64_t>(limit, 0)));
  result.ids.reserve(static_cast<std::size_t>(std::max<int64_t>(limit, 0)));
  result.text.reserve(static_cast<std::size_t>(std::max<int64_t>(limit, 0)) * 8);
  TextOut out{TextStream(options.stop), result.text, on_text};

  const auto matcher = make_matcher(engine, options, limit);

  const auto start = Clock::now();
  std::span<const float> logits = prefill(session, prompt, options);
  result.prompt_seconds = seconds_since(start);
  if (logits.empty()) {
    result.reason = FinishReason::kCancelled;
    return result;
  }
  const auto& stop = engine.stop_tokens();
  result.reason = FinishReason::kLength;
  while (std::ssize(result.ids) < limit) {
    const int32_t id = next_token(sampler, session, logits, history, matcher.get(),
                                  limit - std::ssize(result.ids));
    result.ids.push_back(id);
    history.push_back(id);
    if (result.ids.size() == 1) result.first_token_seconds = seconds_since(start);
    if ((!options.ignore_eos || matcher) && std::binary_search(stop.begin(), stop.end(), id)) {
      result.reason = FinishReason::kStop;
      break;
    }
    const bool go_on = engine.tokenizer().is_control(id) || out.push(engine.tokenizer().bytes(id));
    if (out.stream.stopped() || !go_on) {
      result.reason = out.stream.stopped() ? FinishReason::kStop : FinishReason::kCancelled;
      break;
    }
    if (matcher && matcher->must_end()) {
      result.reason = FinishReason::kStop;
      break;
    }
    if (std::ssize(result.ids) == limit) break;
    logits = session.forward({&id, 1});
  }
  if (result.reason == FinishReason::kLength && limit != options.max_tokens)
    result.reason = FinishReason::kContext;
  out.finish();
  result.decode_seconds = seconds_since(start) - result.first_token_seconds;
  return result;
}

}  // namespace crumb

#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "models/errors.h"
#include "tokenizer/utf8.h"

namespace crumb {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Passes text on, holding back what may be the start of a stop text.
class StopFilter {
 public:
  explicit StopFilter(const std::vector<std::string>& stop) : stop_(stop) {
    for (const auto& s : stop) longest_ = std::max(longest_, s.size());
    held_.reserve(longest_ + 64);
  }
  // Adds text; returns what may be shown now. stopped() tells whether a stop text was completed.
  std::string push(std::string_view text) {
    held_ += text;
    std::size_t at = std::string::npos;
    for (const auto& s : stop_) at = std::min(at, held_.find(s));
    if (at != std::string::npos) {
      stopped_ = true;
      held_.resize(at);
      return std::exchange(held_, {});
    }
    const std::size_t keep = held_suffix();
    std::string out = held_.substr(0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
    return out;
  }
  std::string finish() { return std::exchange(held_, {}); }
  bool stopped() const { return stopped_; }

 private:
  // Length of the longest end of held_ that begins a stop text.
  std::size_t held_suffix() const {
    for (std::size_t n = std::min(longest_, held_.size()); n > 0; --n)
      for (const auto& s : stop_)
        if (n < s.size() &&
            std::string_view(held_).substr(held_.size() - n) == std::string_view(s).substr(0, n))
          return n;
    return 0;
  }

  const std::vector<std::string>& stop_;
  std::size_t longest_ = 0;
  std::string held_;
  bool stopped_ = false;
};

// Text on its way from tokens to the caller.
struct TextOut {
  tokenizer::Utf8Stream utf8;
  StopFilter filter;
  std::string& text;
  const std::function<bool(std::string_view)>& on_text;

  bool emit(const std::string& piece) {
    if (piece.empty()) return true;
    text += piece;
    return !on_text || on_text(piece);
  }
  bool push(std::string_view bytes) { return emit(filter.push(utf8.push(bytes))); }
  void finish() {
    if (!filter.stopped()) emit(filter.push(utf8.finish()));
    if (!filter.stopped()) emit(filter.finish());
  }
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
  if (!options.on_prefill) return session.forward(prompt);
  session.require_room(std::ssize(prompt));
  std::span<const float> logits;
  for (std::size_t done = 0; done < prompt.size();) {
    if (!options.on_prefill(static_cast<int64_t>(done), std::ssize(prompt))) return {};
    const auto piece = prompt.subspan(done, std::min(kPiece, prompt.size() - done));
    logits = session.forward(piece);
    done += piece.size();
  }
  return logits;
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
  std::vector<int32_t> history(before.begin(), before.end());
  history.insert(history.end(), prompt.begin(), prompt.end());
  // Nothing is allocated between two tokens: room for the whole answer is made here.
  history.reserve(history.size() + static_cast<std::size_t>(std::max<int64_t>(limit, 0)));
  result.ids.reserve(static_cast<std::size_t>(std::max<int64_t>(limit, 0)));
  result.text.reserve(static_cast<std::size_t>(std::max<int64_t>(limit, 0)) * 8);
  TextOut out{{}, StopFilter(options.stop), result.text, on_text};

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
    const int32_t id = sampler.sample(logits, history, session.block_max());
    result.ids.push_back(id);
    history.push_back(id);
    if (result.ids.size() == 1) result.first_token_seconds = seconds_since(start);
    if (!options.ignore_eos && std::binary_search(stop.begin(), stop.end(), id)) {
      result.reason = FinishReason::kStop;
      break;
    }
    const bool go_on = engine.tokenizer().is_control(id) || out.push(engine.tokenizer().bytes(id));
    if (out.filter.stopped() || !go_on) {
      result.reason = out.filter.stopped() ? FinishReason::kStop : FinishReason::kCancelled;
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

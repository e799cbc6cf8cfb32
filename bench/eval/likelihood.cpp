#include "bench/eval/likelihood.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/eval/scoring.h"
#include "bench/eval/white_space.h"
#include "models/errors.h"
#include "tokenizer/chat_template.h"

namespace crumb::eval {
namespace {

// Length of the longest common beginning.
std::size_t common(std::span<const int32_t> a, std::span<const int32_t> b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

struct TokenScore {
  double log_p = 0;
  bool top = false;
};

TokenScore score_token(std::span<const float> logits, int32_t target) {
  const auto top = std::max_element(logits.begin(), logits.end()) - logits.begin();
  return {-negative_log_likelihood(logits, target), top == target};
}

}  // namespace

EncodedPair encode_pair(const Engine& engine, std::string context, std::string continuation) {
  const std::size_t kept = without_space_at_end(context).size();
  continuation.insert(0, context.substr(kept));
  context.resize(kept);
  const tokenizer::Tokenizer& tokenizer = engine.tokenizer();
  EncodedPair pair;
  tokenizer::EncodeReport report;
  if (context.empty()) {
    const tokenizer::TokenizerData& data = tokenizer.data();
    const int32_t prefix = data.bos >= 0 ? data.bos : data.eos;
    if (prefix < 0)
      throw Error(ExitCode::kUsage,
                  "no context and no token to stand for it (expected a BOS or EOS token in the "
                  "vocabulary, found neither)");
    pair.context = {prefix};
    pair.continuation = tokenizer.encode(continuation, false, &report);
    if (data.add_bos && !pair.continuation.empty() && pair.continuation.front() == data.bos)
      pair.continuation.erase(pair.continuation.begin());
    pair.dropped_bytes = report.dropped_bytes;
    return pair;
  }
  pair.context = tokenizer.encode(context, false);
  std::vector<int32_t> whole = tokenizer.encode(context + continuation, false, &report);
  pair.dropped_bytes = report.dropped_bytes;
  const auto from = std::min(pair.context.size(), whole.size());
  pair.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(from), whole.end());
  return pair;
}

struct ChatPairs::State {
  std::shared_ptr<const Engine> engine;
  tokenizer::ChatTemplate chat_template;
};

ChatPairs::ChatPairs(std::shared_ptr<const Engine> engine) {
  if (engine->chat_template().empty())
    throw FormatError("the model has no chat template (" + engine->info().path + ")",
                      "without --chat the questions are asked as plain text");
  auto parsed = tokenizer::ChatTemplate::parse(engine->chat_template());
  state_.reset(new State{std::move(engine), std::move(parsed)});
}
ChatPairs::~ChatPairs() = default;

EncodedPair ChatPairs::encode(const std::string& context, const std::string& continuation) const {
  const tokenizer::Tokenizer& tokenizer = state_->engine->tokenizer();
  const auto token_text = [&](int32_t id) {
    return id < 0 ? std::string() : std::string(tokenizer.bytes(id));
  };
  nlohmann::ordered_json variables;
  variables["messages"] = {{{"role", "user"}, {"content", context}}};
  variables["add_generation_prompt"] = true;
  variables["bos_token"] = token_text(tokenizer.data().bos);
  variables["eos_token"] = token_text(tokenizer.data().eos);
  auto segments = state_->chat_template.render(variables);
  EncodedPair pair;
  tokenizer::EncodeReport report;
  pair.context = tokenizer.encode(segments);
  segments.push_back({continuation.substr(continuation.starts_with(' ') ? 1 : 0), false});
  const auto whole = tokenizer.encode(segments, &report);
  pair.dropped_bytes = report.dropped_bytes;
  const auto from = std::min(pair.context.size(), whole.size());
  pair.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(from), whole.end());
  return pair;
}

struct LikelihoodScorer::State {
  std::shared_ptr<const Engine> engine;
  std::optional<ChatPairs> chat;
  std::unique_ptr<Session> session;
  std::vector<int32_t> held;      // tokens in the session's cache
  std::vector<float> end_logits;  // [V] after the context `end_of`
  std::vector<int32_t> end_of;
  int64_t run = 0, reused = 0, dropped = 0, cut = 0;

  // The session holds exactly `context`, and end_logits are those of its last token.
  void read_context(std::span<const int32_t> context) {
    const std::size_t same = common(held, context);
    if (same == context.size() && std::ranges::equal(end_of, context)) {
      cut_back(same);
      reused += std::ssize(context);
      return;
    }
    const std::size_t keep = std::min(same, context.size() - 1);
    cut_back(keep);
    const auto fresh = context.subspan(keep);
    const auto logits = session->forward(fresh);
    end_logits.assign(logits.begin(), logits.end());
    end_of.assign(context.begin(), context.end());
    held.assign(context.begin(), context.end());
    reused += static_cast<int64_t>(keep);
    run += std::ssize(fresh);
  }

  void cut_back(std::size_t n) {
    session->truncate(static_cast<int64_t>(n));
    held.resize(n);
  }

  Likelihood continue_with(std::span<const int32_t> continuation) {
    Likelihood result{0, std::ssize(continuation), true};
    const auto add = [&](std::span<const float> logits, int32_t target) {
      const TokenScore one = score_token(logits, target);
      result.log_p += one.log_p;
      result.greedy = result.greedy && one.top;
    };
    if (continuation.empty()) return result;
    add(end_logits, continuation.front());
    const auto fed = continuation.first(continuation.size() - 1);  // the last is only a target
    if (fed.empty()) return result;
    held.insert(held.end(), fed.begin(), fed.end());
    session->forward_all(fed, [&](int64_t t, std::span<const float> logits) {
      add(logits, continuation[static_cast<std::size_t>(t) + 1]);
    });
    run += std::ssize(fed);
    return result;
  }
};

LikelihoodScorer::LikelihoodScorer(std::shared_ptr<const Engine> engine, kernels::KvType kv,
                                   bool chat)
    : state_(new State) {
  if (chat) state_->chat.emplace(engine);
  SessionOptions options;
  options.kv = kv;
  state_->session = engine->make_session(options);
  state_->engine = std::move(engine);
}
LikelihoodScorer::~LikelihoodScorer() = default;

int64_t LikelihoodScorer::tokens_run() const { return state_->run; }
int64_t LikelihoodScorer::tokens_reused() const { return state_->reused; }
int64_t LikelihoodScorer::dropped_bytes() const { return state_->dropped; }
int64_t LikelihoodScorer::cut_questions() const { return state_->cut; }

std::vector<Likelihood> LikelihoodScorer::score(const Question& question) {
  State& s = *state_;
  const auto room = static_cast<std::size_t>(s.session->context());
  std::vector<Likelihood> results;
  for (const Choice& choice : question.choices) {
    EncodedPair pair = s.chat ? s.chat->encode(choice.context, choice.continuation)
                              : encode_pair(*s.engine, choice.context, choice.continuation);
    s.dropped += pair.dropped_bytes;
    const std::size_t all = pair.context.size() + pair.continuation.size();
    if (all > room + 1) {  // the last token is not fed
      const std::size_t excess = all - room - 1;
      if (excess >= pair.context.size())
        throw FormatError("continuation too long (expected at most " + std::to_string(room) +
                          " tokens, the model's context, found " +
                          std::to_string(pair.continuation.size()) + ")");
      pair.context.erase(pair.context.begin(),
                         pair.context.begin() + static_cast<std::ptrdiff_t>(excess));
      ++s.cut;
    }
    s.read_context(pair.context);
    results.push_back(s.continue_with(pair.continuation));
  }
  return results;
}

}  // namespace crumb::eval

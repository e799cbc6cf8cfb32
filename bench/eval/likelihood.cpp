#include "bench/eval/likelihood.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/eval/parallel.h"
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

// Rows collected before the threads score them: enough work for each, a few MB of logits.
constexpr std::size_t kBatch = 32;

// Sums log P over continuations, row by row in the order they are added.
class RowScorer {
 public:
  explicit RowScorer(int threads) : threads_(threads) {}

  void begin(std::size_t continuations) { results_.assign(continuations, {0, 0, true}); }
  // After `logits` comes `target`, a token of continuation `owner`.
  void add(std::size_t owner, std::span<const float> logits, int32_t target) {
    logits_.insert(logits_.end(), logits.begin(), logits.end());
    rows_.push_back({owner, target, 0, false});
    if (rows_.size() == kBatch) flush();
  }
  std::vector<Likelihood> finish() {
    flush();
    return std::move(results_);
  }

 private:
  struct Row {
    std::size_t owner;
    int32_t target;
    double log_p;
    bool top;
  };
  void flush() {
    const std::size_t V = rows_.empty() ? 0 : logits_.size() / rows_.size();
    in_parallel(std::ssize(rows_), threads_, [&](int64_t i) {
      Row& row = rows_[static_cast<std::size_t>(i)];
      const auto logits =
          std::span<const float>(logits_).subspan(static_cast<std::size_t>(i) * V, V);
      row.log_p = -negative_log_likelihood(logits, row.target);
      row.top = std::max_element(logits.begin(), logits.end()) - logits.begin() == row.target;
    });
    for (const Row& row : rows_) {
      Likelihood& result = results_[row.owner];
      result.log_p += row.log_p;
      result.greedy = result.greedy && row.top;
      ++result.tokens;
    }
    rows_.clear();
    logits_.clear();
  }

  int threads_;
  std::vector<Likelihood> results_;
  std::vector<Row> rows_;
  std::vector<float> logits_;  // [rows_, V]
};

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
  State(std::shared_ptr<const Engine> the_engine, const SessionOptions& options)
      : engine(std::move(the_engine)),
        session(engine->make_session(options)),
        rows(engine->thread_plan().threads) {}

  std::shared_ptr<const Engine> engine;
  std::optional<ChatPairs> chat;
  std::unique_ptr<Session> session;
  RowScorer rows;
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

  void continue_with(std::size_t owner, std::span<const int32_t> continuation) {
    if (continuation.empty()) return;
    rows.add(owner, end_logits, continuation.front());
    const auto fed = continuation.first(continuation.size() - 1);  // the last is only a target
    if (fed.empty()) return;
    held.insert(held.end(), fed.begin(), fed.end());
    session->forward_all(fed, [&](int64_t t, std::span<const float> logits) {
      rows.add(owner, logits, continuation[static_cast<std::size_t>(t) + 1]);
    });
    run += std::ssize(fed);
  }
};

LikelihoodScorer::LikelihoodScorer(std::shared_ptr<const Engine> engine, kernels::KvType kv,
                                   bool chat) {
  SessionOptions options;
  options.kv = kv;
  state_ = std::make_unique<State>(engine, options);
  if (chat) state_->chat.emplace(std::move(engine));
}
LikelihoodScorer::~LikelihoodScorer() = default;

int64_t LikelihoodScorer::tokens_run() const { return state_->run; }
int64_t LikelihoodScorer::tokens_reused() const { return state_->reused; }
int64_t LikelihoodScorer::dropped_bytes() const { return state_->dropped; }
int64_t LikelihoodScorer::cut_questions() const { return state_->cut; }

std::vector<Likelihood> LikelihoodScorer::score(const Question& question) {
  State& s = *state_;
  const auto room = static_cast<std::size_t>(s.session->context());
  s.rows.begin(question.choices.size());
  for (std::size_t i = 0; i < question.choices.size(); ++i) {
    const Choice& choice = question.choices[i];
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
    s.continue_with(i, pair.continuation);
  }
  return s.rows.finish();
}

}  // namespace crumb::eval

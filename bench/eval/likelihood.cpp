#include "bench/eval/likelihood.h"

#include <algorithm>
#include <optional>

#include "bench/eval/parallel.h"
#include "bench/eval/scoring.h"
#include "bench/eval/token_tree.h"
#include "bench/eval/white_space.h"
#include "engine/batch.h"
#include "models/errors.h"
#include "models/json.h"
#include "tokenizer/chat_template.h"

namespace crumb::eval {
namespace {

// Length of the longest common beginning.
std::size_t common(std::span<const int32_t> a, std::span<const int32_t> b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

// A turn is as many questions as reach one of these.
constexpr std::size_t kTurnTokens = 4096, kTurnChoices = 64;
// A step of the engine: tokens, and rows of logits (12.6 MB for a vocabulary of 49,152).
constexpr std::size_t kStepTokens = 256, kStepLogits = 64;

// What a sequence of tokens is kept in between its steps and after them.
struct Slot {
  std::unique_ptr<Sequence> sequence;
  std::vector<int32_t> held;
  bool busy = false;
};

struct LogP {
  double value = 0;
  bool top = false;  // the likeliest token of all
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
  State(std::shared_ptr<const Engine> the_engine, kernels::KvType kv)
      : engine(std::move(the_engine)), batch(engine, {0, kv, kStepTokens}) {}

  std::shared_ptr<const Engine> engine;
  std::optional<ChatPairs> chat;
  Batch batch;
  std::vector<Slot> slots;
  int64_t tokens_run = 0, reused = 0, dropped = 0, cut = 0;

  // Pairs of every choice, cut to the context.
  std::vector<std::vector<EncodedPair>> encode(std::span<const Question* const> questions);
  void fit(EncodedPair& pair);

  // One turn.
  std::vector<std::vector<Likelihood>> turn(std::span<const std::vector<EncodedPair>> pairs);
  std::vector<TokenRun> runs;
  std::vector<std::size_t> slot_of;           // [runs]
  std::vector<std::vector<int32_t>> path_of;  // [runs], its tokens behind those before them
  std::vector<std::vector<LogP>> log_p;       // [choices of the turn][continuation]
  void read(const TokenTree& tree);
  void place(std::size_t index);
  std::size_t best_free(std::span<const int32_t> beginning);
  void read_level(const TokenTree& tree, std::span<const std::size_t> level);
  void score_rows(const TokenTree& tree, std::span<const int32_t> nodes);
};

std::vector<std::vector<EncodedPair>> LikelihoodScorer::State::encode(
    std::span<const Question* const> questions) {
  std::vector<std::vector<EncodedPair>> all(questions.size());
  in_parallel(std::ssize(questions), engine->thread_plan().threads, [&](int64_t q) {
    for (const Choice& choice : questions[static_cast<std::size_t>(q)]->choices)
      all[static_cast<std::size_t>(q)].push_back(
          chat ? chat->encode(choice.context, choice.continuation)
               : encode_pair(*engine, choice.context, choice.continuation));
  });
  for (auto& pairs : all)
    for (EncodedPair& pair : pairs) fit(pair);
  return all;
}

void LikelihoodScorer::State::fit(EncodedPair& pair) {
  dropped += pair.dropped_bytes;
  const auto room = static_cast<std::size_t>(batch.context());
  const std::size_t all = pair.context.size() + pair.continuation.size();
  if (all <= room + 1) return;  // the last token is not read
  const std::size_t excess = all - room - 1;
  if (excess >= pair.context.size())
    throw FormatError("continuation too long (expected at most " + std::to_string(room) +
                      " tokens, the model's context, found " +
                      std::to_string(pair.continuation.size()) + ")");
  pair.context.erase(pair.context.begin(),
                     pair.context.begin() + static_cast<std::ptrdiff_t>(excess));
  ++cut;
}

// The free slot that holds most of `beginning`, of equals the one that holds least of anything.
std::size_t LikelihoodScorer::State::best_free(std::span<const int32_t> beginning) {
  std::size_t best = slots.size(), most = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].busy) continue;
    const std::size_t same = common(slots[i].held, beginning);
    if (best == slots.size() || same > most ||
        (same == most && slots[i].held.size() < slots[best].held.size())) {
      best = i;
      most = same;
    }
  }
  if (best == slots.size()) slots.push_back({batch.make_sequence(), {}, false});
  return best;
}

// Gives a run a slot that holds what comes before it, or more: another one that is free, the slot
// of its parent, or a copy of that.
void LikelihoodScorer::State::place(std::size_t index) {
  const TokenRun& one = runs[index];
  const bool root = one.parent < 0;
  const auto parent = static_cast<std::size_t>(std::max(one.parent, 0));
  const auto start = static_cast<std::size_t>(one.start);
  std::vector<int32_t> path = root ? std::vector<int32_t>() : path_of[parent];
  path.insert(path.end(), one.tokens.begin(), one.tokens.end());
  // At least the last token must be read for its logits, or all if all are wanted.
  const std::size_t useful = one.logits == TokenRun::Logits::kAll ? start : path.size() - 1;
  std::size_t own = best_free(std::span(path).first(useful));
  const std::size_t same = common(slots[own].held, std::span(path).first(useful));
  if (root || same > start) {
    slots[own].held.resize(same);
    slots[own].sequence->truncate(static_cast<int64_t>(same));
  } else if (runs[parent].children.back() == static_cast<int32_t>(index)) {
    own = slot_of[parent];  // the others have taken their copies
  } else {
    const Slot& from = slots[slot_of[parent]];
    slots[own].sequence->copy_prefix(*from.sequence, one.start);
    slots[own].held = from.held;
  }
  slots[own].busy = true;
  slot_of[index] = own;
  path_of[index] = std::move(path);
}

// log P of what is wanted after these nodes, whose logits the latest step has.
void LikelihoodScorer::State::score_rows(const TokenTree& tree, std::span<const int32_t> nodes) {
  in_parallel(std::ssize(nodes), engine->thread_plan().threads, [&](int64_t row) {
    const std::span<const float> logits = batch.logits(row);
    const double sum = log_sum_exp(logits);
    for (const Wanted& one : tree.wanted(nodes[static_cast<std::size_t>(row)]))
      log_p[one.owner][one.place] = {
          logits[static_cast<std::size_t>(one.target)] - sum,
          engine->backend().argmax(logits.data(), std::ssize(logits)) == one.target};
  });
  for (int64_t row = 0; row < std::ssize(nodes); ++row)
    if (!batch.finite(row))
      throw Error(ExitCode::kNumeric, "a logit is not finite",
                  "the weights may be damaged: crumb inspect --verify FILE");
}

// The runs of one level side by side, as many tokens a step as it takes.
void LikelihoodScorer::State::read_level(const TokenTree& tree,
                                         std::span<const std::size_t> level) {
  std::vector<BatchPart> parts;
  std::vector<int32_t> nodes;  // of the rows with logits
  std::size_t tokens = 0;
  const auto step = [&] {
    if (parts.empty()) return;
    batch.step(parts);
    score_rows(tree, nodes);
    parts.clear();
    nodes.clear();
    tokens_run += static_cast<int64_t>(std::exchange(tokens, 0));
  };
  for (const std::size_t index : level) {
    const TokenRun& one = runs[index];
    Slot& slot = slots[slot_of[index]];
    const bool all = one.logits == TokenRun::Logits::kAll;
    const std::size_t already = slot.held.size() - static_cast<std::size_t>(one.start);
    for (std::size_t at = already; at < one.tokens.size();) {
      if (tokens == kStepTokens || nodes.size() == kStepLogits) step();
      std::size_t n = std::min(one.tokens.size() - at, kStepTokens - tokens);
      if (all) n = std::min(n, kStepLogits - nodes.size());
      const bool last = at + n == one.tokens.size() && one.logits == TokenRun::Logits::kLast;
      const auto ids = std::span(one.tokens).subspan(at, n);
      parts.push_back({slot.sequence.get(), ids,
                       all    ? LogitsOf::kAll
                       : last ? LogitsOf::kLast
                              : LogitsOf::kNone});
      if (all)
        nodes.insert(nodes.end(), one.nodes.begin() + static_cast<std::ptrdiff_t>(at),
                     one.nodes.begin() + static_cast<std::ptrdiff_t>(at + n));
      if (last) nodes.push_back(one.nodes.back());
      slot.held.insert(slot.held.end(), ids.begin(), ids.end());
      tokens += n;
      at += n;
      // A sequence has one part in a step.
      if (at < one.tokens.size()) step();
    }
  }
  step();
}

void LikelihoodScorer::State::read(const TokenTree& tree) {
  runs = tree.runs();
  slot_of.assign(runs.size(), 0);
  path_of.assign(runs.size(), {});
  for (Slot& slot : slots) slot.busy = false;
  std::vector<std::size_t> level;
  for (int64_t depth = 0; depth == 0 || !level.empty(); ++depth) {
    level.clear();
    for (std::size_t i = 0; i < runs.size(); ++i)
      if (runs[i].level == depth) level.push_back(i);
    for (const std::size_t i : level) place(i);
    read_level(tree, level);
  }
}

LikelihoodScorer::LikelihoodScorer(std::shared_ptr<const Engine> engine, kernels::KvType kv,
                                   bool chat)
    : state_(std::make_unique<State>(engine, kv)) {
  if (chat) state_->chat.emplace(std::move(engine));
}
LikelihoodScorer::~LikelihoodScorer() = default;

int64_t LikelihoodScorer::tokens_run() const { return state_->tokens_run; }
int64_t LikelihoodScorer::tokens_reused() const { return state_->reused; }
int64_t LikelihoodScorer::dropped_bytes() const { return state_->dropped; }
int64_t LikelihoodScorer::cut_questions() const { return state_->cut; }

// The choices of `pairs`, question by question, read together.
std::vector<std::vector<Likelihood>> LikelihoodScorer::State::turn(
    std::span<const std::vector<EncodedPair>> pairs) {
  TokenTree tree;
  log_p.clear();
  const int64_t before = tokens_run;
  int64_t fed = 0;
  for (const auto& choices : pairs)
    for (const EncodedPair& pair : choices) {
      std::vector<Wanted> wanted;
      for (const int32_t target : pair.continuation)
        wanted.push_back({target, log_p.size(), wanted.size()});
      log_p.emplace_back(wanted.size());
      if (wanted.empty()) continue;
      std::vector<int32_t> tokens = pair.context;
      tokens.insert(tokens.end(), pair.continuation.begin(), pair.continuation.end() - 1);
      tree.add(tokens, pair.context.size() - 1, wanted);
      fed += std::ssize(tokens);
    }
  read(tree);
  reused += fed - (tokens_run - before);
  std::vector<std::vector<Likelihood>> results;
  std::size_t owner = 0;
  for (const auto& choices : pairs) {
    results.emplace_back();
    for (std::size_t i = 0; i < choices.size(); ++i, ++owner) {
      Likelihood one{0, std::ssize(log_p[owner]), true};
      for (const LogP& token : log_p[owner]) {
        one.log_p += token.value;
        one.greedy = one.greedy && token.top;
      }
      results.back().push_back(one);
    }
  }
  return results;
}

void LikelihoodScorer::score(std::span<const Question* const> questions, const Done& done) {
  for (std::size_t first = 0; first < questions.size(); first += kTurnChoices) {
    const auto block = questions.subspan(first, std::min(kTurnChoices, questions.size() - first));
    const auto pairs = state_->encode(block);
    for (std::size_t begin = 0, end = 0; begin < block.size(); begin = end) {
      std::size_t tokens = 0, choices = 0;
      while (end < block.size() && tokens < kTurnTokens && choices < kTurnChoices) {
        for (const EncodedPair& pair : pairs[end])
          tokens += pair.context.size() + pair.continuation.size();
        choices += pairs[end++].size();
      }
      auto results = state_->turn(std::span(pairs).subspan(begin, end - begin));
      for (std::size_t i = begin; i < end; ++i) done(first + i, std::move(results[i - begin]));
    }
  }
}

std::vector<Likelihood> LikelihoodScorer::score(const Question& question) {
  const Question* const one[] = {&question};
  std::vector<Likelihood> result;
  score(one, [&](std::size_t, std::vector<Likelihood> all) { result = std::move(all); });
  return result;
}

}  // namespace crumb::eval

// log P(continuation | context) by a model, as lm-evaluation-harness defines it for causal models.
//
// White space at the end of the context moves to the front of the continuation. The context is
// tokenised alone; the continuation's tokens are those of context + continuation after as many as
// the context has. (Where a merge crosses the border the two do not join to the whole text's
// tokens; that is the harness's rule.) An empty context is the model's BOS token, or its EOS token
// if it has none. If both are longer than the model's context by more than one, the front is cut.
// Special tokens are plain text.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/eval/task.h"
#include "engine/engine.h"

namespace crumb::eval {

struct EncodedPair {
  std::vector<int32_t> context, continuation;
  int64_t dropped_bytes = 0;  // that the vocabulary could not hold
};
// Throws Error(kUsage) for an empty context and a model with neither BOS nor EOS.
EncodedPair encode_pair(const Engine& engine, std::string context, std::string continuation);

// The context as a user's message in the model's chat template, the continuation as the beginning
// of the answer: its first space (the harness's delimiter) is dropped. Template and message are one
// text to the tokenizer; only the template's own text can be special tokens.
class ChatPairs {
 public:
  // Throws FormatError if the model has no template or it cannot be parsed.
  explicit ChatPairs(std::shared_ptr<const Engine> engine);
  ~ChatPairs();
  EncodedPair encode(const std::string& context, const std::string& continuation) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Scores many questions side by side, as many as fill a step of the engine (engine/batch.h). What
// their texts have in common at the beginning is read once: the context for all choices, examples
// for all questions of a turn and for the turn after it. The head runs only where a log P is asked.
// The bits are those of each choice read alone.
class LikelihoodScorer {
 public:
  LikelihoodScorer(std::shared_ptr<const Engine> engine, kernels::KvType kv, bool chat = false);
  ~LikelihoodScorer();

  // done(i, likelihoods of questions[i]) comes once for each, in their order, turn by turn; what it
  // throws ends the work. Throws as Batch does, and Error(kBadFile) for a continuation longer than
  // the context.
  using Done = std::function<void(std::size_t, std::vector<Likelihood>)>;
  void score(std::span<const Question* const> questions, const Done& done);
  std::vector<Likelihood> score(const Question& question);

  int64_t tokens_run() const;     // through the transformer so far
  int64_t tokens_reused() const;  // of all choices' texts, that were read for another one
  int64_t dropped_bytes() const;
  int64_t cut_questions() const;  // choices whose front was cut to fit the context

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::eval

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
#include <memory>
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

// Scores one question after another on one session. What the session already holds of the next
// text stays: the context is read once for all choices, a common beginning once for all questions
// that follow each other. Cached or not, the bits are the same.
class LikelihoodScorer {
 public:
  LikelihoodScorer(std::shared_ptr<const Engine> engine, kernels::KvType kv, bool chat = false);
  ~LikelihoodScorer();

  // Throws as Session does, and Error(kBadFile) for a continuation longer than the context.
  std::vector<Likelihood> score(const Question& question);

  int64_t tokens_run() const;     // through the transformer so far
  int64_t tokens_reused() const;  // found in the cache
  int64_t dropped_bytes() const;
  int64_t cut_questions() const;  // choices whose front was cut to fit the context

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::eval

// Greedy answers of a model to the turns of a plan.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "bench/eval/task.h"
#include "engine/engine.h"

namespace crumb::eval {

// Answers many plans side by side, each token of all in one step of the engine (engine/batch.h);
// the common beginning of two prompts is read once. Always the most likely token (the lowest id of
// equals), no repetition penalty. The answer ends at a stop token, a stop text of the plan,
// max_tokens or the end of the context. An answer's bits do not depend on what is written beside
// it.
class AnswerWriter {
 public:
  // `side_by_side` plans at a time, at least one: each keeps the keys and values of its text.
  AnswerWriter(std::shared_ptr<const Engine> engine, kernels::KvType kv, int64_t side_by_side = 16);
  ~AnswerWriter();

  // done(i, answers of plans[i]) comes once for each, as they end; what it throws ends the work.
  // `keep_going` is asked before every step; false throws Interrupted. Throws as Batch does,
  // FormatError for a chat plan of a model without a template or an empty prompt, Error(kMemory)
  // for a prompt longer than the context.
  using Done = std::function<void(std::size_t, std::vector<Answer>)>;
  void answer(std::span<const GenerationPlan* const> plans, const std::function<bool()>& keep_going,
              const Done& done);
  std::vector<Answer> answer(const GenerationPlan& plan, const std::function<bool()>& keep_going);

  int64_t tokens_run() const;     // prompt and generated, through the transformer
  int64_t tokens_reused() const;  // of prompts, found in a cache
  int64_t dropped_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::eval

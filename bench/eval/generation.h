// Greedy answers of a model to the turns of a plan.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "bench/eval/task.h"
#include "engine/engine.h"

namespace crumb::eval {

// One plan after another; the common beginning of two prompts is read once. Always the most likely
// token (the lowest id of equals), no repetition penalty. The answer ends at a stop token, a stop
// text of the plan, max_tokens or the end of the context.
class AnswerWriter {
 public:
  AnswerWriter(std::shared_ptr<const Engine> engine, kernels::KvType kv);
  ~AnswerWriter();

  // `keep_going` is asked at every piece of text and between the pieces of a long prompt; false
  // throws Interrupted. Throws as Session does, FormatError for a chat plan of a model without a
  // template, Error(kMemory) for a prompt longer than the context.
  std::vector<Answer> answer(const GenerationPlan& plan, const std::function<bool()>& keep_going);

  int64_t tokens_run() const;     // prompt and generated, through the transformer
  int64_t tokens_reused() const;  // of prompts, found in the cache
  int64_t dropped_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::eval

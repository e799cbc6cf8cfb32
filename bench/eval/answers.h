// Answers of a model to a list of questions, one after another, kept in a file as they come.
//
// Every question starts from an empty conversation; the session's cache of the common beginning
// (system message, few-shot text) stays. Greedy answers depend on model, question and options only,
// sampled ones also on the seed, which each question draws for itself from `seed` and its id: the
// order of the questions, --limit and an interruption change nothing.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/generate.h"
#include "engine/progress.h"

namespace crumb::eval {

struct Question {
  std::string id;                  // unique in its list
  std::vector<std::string> turns;  // what the user says, in order; at least one
};

struct AnswerOptions {
  bool chat = true;          // through the model's template; false: turns[0] is continued as it is
  int64_t max_tokens = 512;  // of one answer
  std::vector<std::string> stop;
  double temperature = 0;  // 0: greedy; else a draw from the whole distribution
  uint64_t seed = 0;
  kernels::KvType kv = kernels::KvType::kI8;
  std::string store;  // file of finished answers, empty: none
};

struct Answer {
  std::vector<std::string> texts;  // one a turn
  int64_t new_tokens = 0;          // of all turns
  bool hit_limit = false;          // a turn ended at max_tokens or at the end of the context
  int64_t dropped_bytes = 0;       // of the question, that the vocabulary cannot hold
};

struct Answers {
  std::vector<Answer> list;  // in the questions' order
  int64_t reused = 0;        // taken from the store
};

// Progress counts questions (stage "answers"). The store is JSONL: a line {"schema":
// "crumb.answers/1", "model", "options"} and a line {"id", "question", "texts", "new_tokens",
// "hit_limit", "dropped_bytes"} for each answer; it is written whole every few seconds and at the
// end, so a killed job repeats little. Answers in it are taken only where model (content hash),
// options, id and question (hash) agree; the program's version is not looked at: delete the file
// after a change of the kernels. Throws FormatError (no chat template; a store that is no store, or
// of another model or other options), Error(kUsage) for max_tokens < 1 or a question without turns,
// Error(kMemory) if a question does not fit the context, Interrupted (the store is written first).
Answers answer_all(const std::shared_ptr<const Engine>& engine,
                   const std::vector<Question>& questions, const AnswerOptions& options,
                   const ProgressFn& progress);

}  // namespace crumb::eval

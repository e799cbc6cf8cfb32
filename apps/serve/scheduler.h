// Continuous batching: texts of many requests on the slots of one batch.
//
// A thread of its own takes step after step. In each, every slot that writes adds one row and the
// slots that still read share one chunk of rows, so that a long prompt delays a running stream by
// one chunk and no more. Requests wait in a bounded queue; a request with several texts gives way
// to those with fewer running. A slot keeps what it has read: the next text that begins the same
// reads only the rest (the bits are those of a cold slot, engine/batch.h).
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/serve/api_error.h"
#include "apps/serve/metrics.h"
#include "engine/batch.h"
#include "engine/generate.h"
#include "engine/json_grammar.h"

namespace crumb::serve {

// One text to go on from, or to read.
struct Job {
  std::vector<int32_t> prompt;  // at least one token, at most the context
  int64_t prompt_index = 0;     // of its request: jobs of one index have equal prompts
  SamplingOptions sampling;
  int64_t max_tokens = -1;  // -1: until a stop or the end of the context
  std::vector<std::string> stop;
  bool ignore_eos = false;
  int top_logprobs = -1;         // of each token written: -1 none, else how many of the likeliest
  bool prompt_logprobs = false;  // also of the prompt's tokens but the first
  bool cache = true;             // may begin with what a slot holds
  bool embed = false;            // wants the mean of the final states, writes nothing
  std::shared_ptr<const JsonGrammar> grammar;  // the answer is held to it; may be null
};

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // likeliest first, ties by id
};

struct JobStats {
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double queue_seconds = 0, prompt_seconds = 0, decode_seconds = 0;  // decode: behind token 1
};

struct JobEvent {
  enum class Kind : uint8_t { kPrompt, kToken, kEmbedding, kDone, kFailed };
  Kind kind = Kind::kDone;
  std::size_t job = 0;
  std::vector<TokenLogprob> logprobs;         // kPrompt: a chunk's; kToken: one if asked for
  int32_t id = 0;                             // kToken
  std::string text;                           // kToken, kDone: what may be shown now
  std::vector<float> embedding;               // kEmbedding
  FinishReason reason = FinishReason::kStop;  // kDone
  JobStats stats;                             // kToken, kDone
  std::optional<ApiError> error;              // kFailed
};

// What a client asked for at once. Ends with a kDone for every job, with the first kFailed, or by
// cancel(). Without memory even for a kFailed it is dropped without a word.
struct WorkRequest {
  std::vector<Job> jobs;
  std::function<void(JobEvent)> on_event;  // on the scheduler's thread
  std::function<bool()> blocked;  // true: the client must take something first; may be empty
  double max_seconds = 0;         // since it was submitted; 0: no limit

  std::atomic<bool> cancelled{false};
};

struct SchedulerOptions {
  int slots = 4;
  int64_t chunk = 64;  // rows of prompts in one step
  int64_t context = 0;
  kernels::KvType kv = kernels::KvType::kI8;
  int64_t queue = 64;
  bool cache = true;
};

struct SlotState {
  int id = 0;
  bool busy = false, reading = false;
  int64_t cached_tokens = 0, prompt_tokens = 0, prompt_read = 0, generated = 0;
};

class Scheduler {
 public:
  Scheduler(std::shared_ptr<const Engine> engine, const SchedulerOptions& options,
            Metrics& metrics);
  ~Scheduler();  // drops what is under way without a word

  // Any thread. ApiError 503 if the queue is full or the server drains.
  void submit(std::shared_ptr<WorkRequest> request);
  // Any thread: no event comes after the step that is under way.
  void cancel(const std::shared_ptr<WorkRequest>& request);
  // Any thread: what waits fails with 503, what runs goes on.
  void drain();

  std::vector<SlotState> slots() const;
  int64_t waiting() const;
  int64_t in_flight() const;  // waiting or running
  int64_t context() const;
  int slot_count() const;
  int64_t kv_bytes() const;  // that all slots can come to take

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::serve

// A loaded model and the sessions that run on it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/phase_times.h"
#include "engine/threads/topology.h"
#include "kernels/backend.h"
#include "models/config.h"
#include "models/source.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace crumb {

struct LoadOptions {
  int threads = 0;  // 0: what threads::plan() chooses
  bool pin = true;
  std::string isa;           // backend name, empty: CRUMB_ISA, else the best one
  bool copy_weights = true;  // into one huge-page arena in execution order; false: use the mapping
};

struct ModelInfo {
  std::string path, name, weights;  // weights: "INT4 g64 seq", "F32 (dequantized Q4_1)"
  bool packed = false;              // low-bit weights, not floats
  int64_t file_bytes = 0, parameters = 0;
  int64_t linear_bytes_per_token = 0, head_bytes_per_token = 0;  // read to decode one token
  double linear_bpw = 0, head_bits = 0, total_bpw = 0;
};

struct SessionOptions {
  int64_t context = 0;  // positions; 0: the trained length
  kernels::KvType kv = kernels::KvType::kI8;
  int64_t chunk = 64;  // tokens of one prefill step
};

class Session;

// Const and shared after load(): several sessions may live on one engine, one runs at a time.
class Engine : public std::enable_shared_from_this<Engine> {
 public:
  // A .crumb checkpoint runs packed; a GGUF file runs in f32. Throws Error (models/errors.h).
  static std::shared_ptr<const Engine> load(const std::string& path,
                                            const LoadOptions& options = {});
  // A full-precision model already opened (tests, quantizer): runs in f32.
  static std::shared_ptr<const Engine> from_source(const models::SourceModel& source,
                                                   const LoadOptions& options = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const models::ModelConfig& config() const;
  const models::GenerationDefaults& generation() const;
  const tokenizer::Tokenizer& tokenizer() const;
  const std::string& chat_template() const;         // Jinja source, may be empty
  const std::vector<int32_t>& stop_tokens() const;  // eos, eot and whatever the file lists
  const ModelInfo& info() const;
  const kernels::Backend& backend() const;
  const threads::Plan& thread_plan() const;

  std::unique_ptr<Session> make_session(const SessionOptions& options = {}) const;

  struct State;
  const State& state() const { return *state_; }  // engine/ only

 private:
  Engine();
  std::unique_ptr<State> state_;
};

// One conversation's KV cache and scratch. Not thread-safe. Several at a time: engine/batch.h.
class Session {
 public:
  ~Session();
  int64_t position() const;  // tokens in the cache
  int64_t context() const;
  // Forgets everything from position `n` on.
  void truncate(int64_t n);

  // Appends `ids` (prefill for many, decode for one) and returns the logits [V] of the last one;
  // the span lives until the next call. Bit-equal whatever the chunk size and number of threads.
  // Throws Error kMemory (limit) when the context would overflow, kNumeric if a logit is not
  // finite. An id below 0 stands for row ~id of `rows` [R, D], which the first block reads in place
  // of an embedding: an image's tokens (engine/vision/encoder.h).
  std::span<const float> forward(std::span<const int32_t> ids, std::span<const float> rows = {});
  // Of the last token's logits of the latest step: the largest of each block of 32
  // (engine/logit_blocks.h), found while they were computed.
  std::span<const float> block_max() const;
  // As forward, with the logits of every position given to `on_logits(position_in_ids, logits
  // [V])`.
  void forward_all(std::span<const int32_t> ids,
                   const std::function<void(int64_t, std::span<const float>)>& on_logits);

  // Throws Error(kMemory) unless `tokens` more fit the context.
  void require_room(int64_t tokens) const;

  // From now on the time of every step is added to `times`; null stops that.
  void measure(PhaseTimes* times);

  int64_t kv_bytes() const;  // reserved for the whole context

  struct State;
  explicit Session(std::unique_ptr<State> state);

 private:
  std::unique_ptr<State> state_;
};

}  // namespace crumb

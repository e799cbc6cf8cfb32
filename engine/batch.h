// One step over several sequences: prefill chunks of some beside decode rows of others. The rows go
// through the matrices together; each attends to its own cache at its own position. A row's bits do
// not depend on its neighbours: they are those of the sequence alone (engine/session.h).
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace crumb {

class Batch;

// What a model has read of one text: keys and values of its positions. Not thread-safe; lives on
// the batch that made it.
class Sequence {
 public:
  ~Sequence();
  int64_t position() const;  // tokens in the cache
  int64_t context() const;   // positions at most
  // Forgets everything from position `n` on.
  void truncate(int64_t n);
  // Becomes the first `n` tokens of `from`, n <= from.position(), of a batch of the same engine and
  // options.
  void copy_prefix(const Sequence& from, int64_t n);
  int64_t kv_bytes() const;            // reserved for the whole context
  int64_t bytes_per_position() const;  // that a token read adds

  struct State;
  explicit Sequence(std::unique_ptr<State> state);

 private:
  friend class Batch;
  std::unique_ptr<State> state_;
};

enum class LogitsOf : uint8_t { kNone, kLast, kAll };

// The next tokens of one sequence.
struct BatchPart {
  Sequence* sequence = nullptr;
  std::span<const int32_t> ids;  // at least one; below 0: row ~id of `rows`
  LogitsOf logits = LogitsOf::kLast;
  std::span<const float> rows = {};  // [R, D], what the first block reads: an image's tokens
};

struct BatchOptions {
  int64_t context = 0;  // positions of a sequence; 0: the trained length
  kernels::KvType kv = kernels::KvType::kI8;
  int64_t max_rows = 64;  // tokens of one step over all sequences
};

// The scratch of a step. One thread at a time.
class Batch {
 public:
  // Throws Error(kUsage) for a context or a number of rows out of range.
  Batch(std::shared_ptr<const Engine> engine, const BatchOptions& options);
  ~Batch();
  std::unique_ptr<Sequence> make_sequence() const;

  // Appends each part's ids to its sequence, all in one pass over the weights. Every sequence at
  // most once; max_rows ids in all. Nothing is read if it throws: Error kMemory (limit) when a
  // context would overflow, kBadFile for an id out of range, kInternal for too many tokens or a row
  // that is not there.
  void step(std::span<const BatchPart> parts);

  // Of the latest step. `row` counts the rows that were asked for logits, in the order of the
  // parts.
  std::span<const float> logits(int64_t row) const;     // [V]
  std::span<const float> block_max(int64_t row) const;  // largest of each block of 32
  // False if a logit of the row is infinite or NaN: the weights may be damaged.
  bool finite(int64_t row) const;
  // The state [D] of token `index` of all the step's ids behind the final norm: what the head
  // reads.
  void hidden(int64_t index, std::span<float> out) const;

  int64_t context() const;
  int64_t max_rows() const;
  // From now on the time of every step is added to `times`; null stops that.
  void measure(PhaseTimes* times);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb

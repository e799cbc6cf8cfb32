// A place where one text is read and written; for scheduler.cpp only.
#pragma once
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "apps/serve/scheduler.h"
#include "engine/json_matcher.h"
#include "engine/sampler.h"
#include "engine/text_stream.h"

namespace crumb::serve {

using Clock = std::chrono::steady_clock;

// A request in the scheduler.
struct Entry {
  std::shared_ptr<WorkRequest> request;
  Clock::time_point submitted;
  std::size_t next_job = 0, left = 0, running = 0;  // left: jobs that have not ended
};

// A job on a slot.
struct Active {
  std::shared_ptr<Entry> entry;
  std::size_t index = 0;
  std::vector<int32_t> history;  // prompt and what was written
  int64_t read = 0, limit = 0;   // prompt tokens in the cache; tokens to write at most
  JobStats stats;
  TextStream text;
  std::unique_ptr<JsonMatcher> matcher;  // null without a grammar
  std::vector<double> hidden_sum;        // [D], for embeddings
  Clock::time_point started, last_token;

  const Job& job() const { return entry->request->jobs[index]; }
  bool reading() const { return read < static_cast<int64_t>(job().prompt.size()); }
};

struct Slot {
  Slot(std::unique_ptr<Sequence> the_sequence, int64_t vocab)
      : sequence(std::move(the_sequence)), sampler({}, vocab) {}

  std::unique_ptr<Sequence> sequence;
  Sampler sampler;
  std::vector<int32_t> held;  // what the sequence has read, while no job is here
  uint64_t used = 0;          // when a job was last put here
  std::optional<Active> active;

  std::span<const int32_t> read() const {
    const auto& ids = active ? active->history : held;
    return std::span(ids).first(static_cast<std::size_t>(sequence->position()));
  }
};

// The slot for a prompt, and how much of it is already there. A free slot is taken in place if that
// costs it less than half of what it holds; else the one that rests longest takes over a copy of
// the common beginning, from a busy slot too.
struct SlotChoice {
  Slot* slot = nullptr;  // null: none is free
  const Slot* from = nullptr;
  int64_t common = 0;
};
SlotChoice choose_slot(std::vector<Slot>& slots, std::span<const int32_t> prompt, bool cache);

// How the rows of prompts in one step are divided: evenly, what one does not need to the others,
// earlier ones first. `left` are the tokens each still has to read.
std::vector<int64_t> share_rows(const std::vector<int64_t>& left, int64_t rows);

}  // namespace crumb::serve

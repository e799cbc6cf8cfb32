#include "engine/session.h"

#include <algorithm>

#include "models/errors.h"

namespace crumb {
namespace {

BatchOptions batch_options(const Engine& engine, const SessionOptions& options) {
  BatchOptions batch;
  batch.context = options.context;
  batch.kv = options.kv;
  const int64_t context = options.context > 0 ? options.context : engine.config().context;
  // A chunk out of range is for Batch to refuse.
  batch.max_rows = options.chunk <= 4096 ? std::min(options.chunk, context) : options.chunk;
  return batch;
}

}  // namespace

Session::State::State(std::shared_ptr<const Engine> the_engine, const SessionOptions& options)
    : engine(std::move(the_engine)),
      batch(engine, batch_options(*engine, options)),
      sequence(batch.make_sequence()) {}

void Session::State::step(std::span<const int32_t> ids, LogitsOf logits,
                          std::span<const float> given) {
  const BatchPart part{sequence.get(), ids, logits, given};
  batch.step({&part, 1});
  const int64_t rows = logits == LogitsOf::kAll    ? std::ssize(ids)
                       : logits == LogitsOf::kLast ? 1
                                                   : 0;
  last_row = std::max<int64_t>(rows - 1, 0);
  for (int64_t row = 0; row < rows; ++row)
    if (!batch.finite(row))
      throw Error(ExitCode::kNumeric,
                  "a logit is not finite (position " +
                      std::to_string(sequence->position() - rows + row) + ")",
                  "the weights may be damaged: crumb inspect --verify FILE");
}

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::~Session() = default;
int64_t Session::position() const { return state_->sequence->position(); }
int64_t Session::context() const { return state_->batch.context(); }
void Session::require_room(int64_t tokens) const { crumb::require_room(*state_->sequence, tokens); }
void Session::measure(PhaseTimes* times) { state_->batch.measure(times); }
int64_t Session::kv_bytes() const { return state_->sequence->kv_bytes(); }
void Session::truncate(int64_t n) { state_->sequence->truncate(n); }

std::span<const float> Session::forward(std::span<const int32_t> ids, std::span<const float> rows) {
  State& s = *state_;
  if (ids.empty()) throw Error(ExitCode::kInternal, "forward needs at least one token");
  require_room(std::ssize(ids));
  while (!ids.empty()) {
    const auto n = std::min(ids.size(), static_cast<std::size_t>(s.batch.max_rows()));
    s.step(ids.first(n), n == ids.size() ? LogitsOf::kLast : LogitsOf::kNone, rows);
    ids = ids.subspan(n);
  }
  return s.batch.logits(0);
}

std::span<const float> Session::block_max() const {
  return state_->batch.block_max(state_->last_row);
}

void Session::forward_all(std::span<const int32_t> ids,
                          const std::function<void(int64_t, std::span<const float>)>& on_logits) {
  State& s = *state_;
  require_room(std::ssize(ids));
  for (int64_t done = 0; !ids.empty();) {
    const auto n = std::min(ids.size(), static_cast<std::size_t>(s.batch.max_rows()));
    s.step(ids.first(n), LogitsOf::kAll);
    for (int64_t t = 0; t < static_cast<int64_t>(n); ++t) on_logits(done + t, s.batch.logits(t));
    done += static_cast<int64_t>(n);
    ids = ids.subspan(n);
  }
}

}  // namespace crumb

#include "engine/session.h"

#include <algorithm>

#include "models/errors.h"

namespace crumb {
namespace {

int64_t checked_context(const Engine& engine, int64_t wanted) {
  const int64_t trained = engine.config().context;
  if (wanted < 0 || wanted > trained)
    throw Error(ExitCode::kUsage,
                "context out of range (--ctx-size: expected 1.." + std::to_string(trained) +
                    ", the model's trained length, found " + std::to_string(wanted) + ")");
  return wanted == 0 ? trained : wanted;
}

int64_t checked_chunk(int64_t chunk) {
  if (chunk < 1 || chunk > 4096)
    throw Error(ExitCode::kUsage,
                "prefill chunk out of range (--batch-size: expected 1..4096, found " +
                    std::to_string(chunk) + ")");
  return chunk;
}

}  // namespace

Session::State::State(std::shared_ptr<const Engine> the_engine, const SessionOptions& options)
    : engine(std::move(the_engine)),
      context(checked_context(*engine, options.context)),
      chunk(std::min(checked_chunk(options.chunk), context)),
      cache(engine->config(), context, options.kv),
      rope(engine->config(), context),
      act(engine->config(), chunk, context, engine->state().pool.size()) {}

void Session::State::require_room(int64_t tokens) const {
  if (tokens <= context - position) return;
  throw Error(ExitCode::kMemory,
              "the context is full (expected at most " + std::to_string(context - position) +
                  " more tokens of " + std::to_string(context) + ", found " +
                  std::to_string(tokens) + ")",
              "start over (/clear), or use a larger --ctx-size");
}

void Session::State::step(std::span<const int32_t> ids, int64_t logits_from) {
  const Engine::State& e = engine->state();
  const auto T = static_cast<int64_t>(ids.size());
  for (const int32_t id : ids)
    if (id < 0 || id >= e.config.vocab)
      throw Error(ExitCode::kBadFile, "token id out of range (expected 0.." +
                                          std::to_string(e.config.vocab - 1) + ", found " +
                                          std::to_string(id) + ")");
  rope.extend(position + T);
  act.finite.store(true, std::memory_order_relaxed);
  const StepContext context_of_step{e.config, e.weights, e.backend, cache,       rope,
                                    act,      ids,       position,  logits_from, times};
  {
    const std::lock_guard lock(e.pool_mutex);
    e.pool.run([&](const threads::Worker& worker) { transformer_step(context_of_step, worker); });
  }
  position += T;
  if (!act.finite.load(std::memory_order_relaxed))
    throw Error(ExitCode::kNumeric,
                "a logit is not finite (position " + std::to_string(position - 1) + ")",
                "the weights may be damaged: crumb inspect --verify FILE");
}

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::~Session() = default;
int64_t Session::position() const { return state_->position; }
int64_t Session::context() const { return state_->context; }
void Session::require_room(int64_t tokens) const { state_->require_room(tokens); }
void Session::measure(PhaseTimes* times) { state_->times = times; }
int64_t Session::kv_bytes() const { return state_->cache.reserved_bytes(); }

void Session::truncate(int64_t n) {
  state_->position = std::clamp<int64_t>(n, 0, state_->position);
}

std::span<const float> Session::forward(std::span<const int32_t> ids) {
  State& s = *state_;
  if (ids.empty()) throw Error(ExitCode::kInternal, "forward needs at least one token");
  s.require_room(std::ssize(ids));
  while (!ids.empty()) {
    const auto n = std::min<std::size_t>(ids.size(), static_cast<std::size_t>(s.chunk));
    const bool last = n == ids.size();
    s.step(ids.first(n), static_cast<int64_t>(last ? n - 1 : n));
    ids = ids.subspan(n);
  }
  return s.act.logits.span().first(static_cast<std::size_t>(s.engine->config().vocab));
}

std::span<const float> Session::block_max() const { return state_->act.block_max.span(); }

void Session::forward_all(std::span<const int32_t> ids,
                          const std::function<void(int64_t, std::span<const float>)>& on_logits) {
  State& s = *state_;
  s.require_room(std::ssize(ids));
  const auto V = static_cast<std::size_t>(s.engine->config().vocab);
  const std::size_t rows = std::min<std::size_t>(ids.size(), static_cast<std::size_t>(s.chunk));
  if (s.act.logits.size() < rows * V) s.act.logits = kernels::AlignedBuffer<float>(rows * V);
  for (int64_t done = 0; !ids.empty();) {
    const auto n = std::min<std::size_t>(ids.size(), static_cast<std::size_t>(s.chunk));
    s.step(ids.first(n), 0);
    for (std::size_t t = 0; t < n; ++t)
      on_logits(done + static_cast<int64_t>(t), s.act.logits.span().subspan(t * V, V));
    done += static_cast<int64_t>(n);
    ids = ids.subspan(n);
  }
}

}  // namespace crumb

#include "engine/batch.h"

#include <algorithm>

#include "engine/session.h"
#include "models/errors.h"

namespace crumb {
namespace {

constexpr std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

int64_t checked_context(const Engine& engine, int64_t wanted) {
  const int64_t trained = engine.config().context;
  if (wanted < 0 || wanted > trained)
    throw Error(ExitCode::kUsage,
                "context out of range (--ctx-size: expected 1.." + std::to_string(trained) +
                    ", the model's trained length, found " + std::to_string(wanted) + ")");
  return wanted == 0 ? trained : wanted;
}

int64_t checked_rows(int64_t rows) {
  if (rows < 1 || rows > 4096)
    throw Error(ExitCode::kUsage,
                "prefill chunk out of range (--batch-size: expected 1..4096, found " +
                    std::to_string(rows) + ")");
  return rows;
}

}  // namespace

struct Sequence::State {
  State(const models::ModelConfig& config, int64_t the_context, kernels::KvType kv)
      : context(the_context), cache(config, the_context, kv) {}
  int64_t context;
  KvCache cache;
  int64_t position = 0;
};

Sequence::Sequence(std::unique_ptr<State> state) : state_(std::move(state)) {}
Sequence::~Sequence() = default;
int64_t Sequence::position() const { return state_->position; }
int64_t Sequence::context() const { return state_->context; }
int64_t Sequence::kv_bytes() const { return state_->cache.reserved_bytes(); }
int64_t Sequence::bytes_per_position() const { return state_->cache.bytes_per_position(); }

void Sequence::truncate(int64_t n) {
  state_->position = std::clamp<int64_t>(n, 0, state_->position);
}

void Sequence::copy_prefix(const Sequence& from, int64_t n) {
  if (&from == this) return truncate(n);
  state_->position = std::clamp<int64_t>(n, 0, from.position());
  state_->cache.copy_prefix(from.state_->cache, state_->position);
}

struct Batch::State {
  State(std::shared_ptr<const Engine> the_engine, const BatchOptions& options)
      : engine(std::move(the_engine)),
        context(checked_context(*engine, options.context)),
        max_rows(checked_rows(options.max_rows)),
        kv(options.kv),
        rope(engine->config(), context),
        act(engine->config(), max_rows, context, engine->state().pool.size()) {
    rows.reserve(size_of(max_rows));
    ids.reserve(size_of(max_rows));
    embedded.reserve(size_of(max_rows));
    logit_rows.reserve(size_of(max_rows));
  }

  void check(std::span<const BatchPart> parts) const;
  void gather(std::span<const BatchPart> parts);

  std::shared_ptr<const Engine> engine;
  int64_t context, max_rows;
  kernels::KvType kv;
  RopeTables rope;
  Activations act;
  std::vector<StepRows> rows;
  std::vector<int32_t> ids;
  std::vector<const float*> embedded;  // rows of parts that ids below 0 stand for, in order
  std::vector<int64_t> logit_rows;
  PhaseTimes* times = nullptr;
};

void Batch::State::check(std::span<const BatchPart> parts) const {
  const int64_t vocab = engine->config().vocab;
  int64_t total = 0;
  for (const BatchPart& part : parts) {
    if (part.ids.empty()) throw Error(ExitCode::kInternal, "a part of a step has no tokens");
    require_room(*part.sequence, std::ssize(part.ids));
    total += std::ssize(part.ids);
    const int64_t embedded_rows = std::ssize(part.rows) / engine->config().dim;
    for (const int32_t id : part.ids)
      if (id < 0 && embedded_rows > 0 && ~id >= embedded_rows)
        throw Error(ExitCode::kInternal, "a row is not there (expected 0.." +
                                             std::to_string(embedded_rows - 1) + ", found " +
                                             std::to_string(~id) + ")");
      else if ((id < 0 && embedded_rows == 0) || id >= vocab)
        throw Error(ExitCode::kBadFile, "token id out of range (expected 0.." +
                                            std::to_string(vocab - 1) + ", found " +
                                            std::to_string(id) + ")");
  }
  if (total > max_rows)
    throw Error(ExitCode::kInternal, "too many tokens in a step (expected at most " +
                                         std::to_string(max_rows) + ", found " +
                                         std::to_string(total) + ")");
}

void Batch::State::gather(std::span<const BatchPart> parts) {
  rows.clear();
  ids.clear();
  embedded.clear();
  logit_rows.clear();
  for (const BatchPart& part : parts) {
    Sequence::State& sequence = *part.sequence->state_;
    const auto count = std::ssize(part.ids);
    rows.push_back({&sequence.cache, sequence.position, std::ssize(ids), count});
    for (const int32_t id : part.ids) {
      if (id < 0) embedded.push_back(part.rows.data() + ~id * engine->config().dim);
      ids.push_back(id < 0 ? ~static_cast<int32_t>(std::ssize(embedded) - 1) : id);
    }
    const int64_t from = part.logits == LogitsOf::kAll    ? 0
                         : part.logits == LogitsOf::kLast ? count - 1
                                                          : count;
    for (int64_t i = from; i < count; ++i) logit_rows.push_back(rows.back().first + i);
    rope.extend(sequence.position + count);
  }
}

Batch::Batch(std::shared_ptr<const Engine> engine, const BatchOptions& options)
    : state_(std::make_unique<State>(std::move(engine), options)) {}
Batch::~Batch() = default;

std::unique_ptr<Sequence> Batch::make_sequence() const {
  return std::make_unique<Sequence>(
      std::make_unique<Sequence::State>(state_->engine->config(), state_->context, state_->kv));
}

void Batch::step(std::span<const BatchPart> parts) {
  State& s = *state_;
  if (parts.empty()) throw Error(ExitCode::kInternal, "a step needs at least one token");
  s.check(parts);
  s.gather(parts);
  s.act.expect_logits(std::ssize(s.logit_rows));
  const Engine::State& e = s.engine->state();
  const StepContext step{e.config, e.weights, e.backend,  s.rows,       s.rope,
                         s.act,    s.ids,     s.embedded, s.logit_rows, s.times};
  {
    const std::lock_guard lock(e.pool_mutex);
    e.pool.run([&](const threads::Worker& worker) { transformer_step(step, worker); });
  }
  for (const BatchPart& part : parts) part.sequence->state_->position += std::ssize(part.ids);
}

std::span<const float> Batch::logits(int64_t row) const {
  const auto V = size_of(state_->engine->config().vocab);
  return state_->act.logits.span().subspan(size_of(row) * V, V);
}

std::span<const float> Batch::block_max(int64_t row) const {
  const auto blocks = size_of(logit_blocks(state_->engine->config().vocab));
  return state_->act.block_max.span().subspan(size_of(row) * blocks, blocks);
}

bool Batch::finite(int64_t row) const {
  return state_->act.finite[size_of(row)].load(std::memory_order_relaxed);
}

void Batch::hidden(int64_t index, std::span<float> out) const {
  const Engine::State& e = state_->engine->state();
  e.backend.rmsnorm(state_->act.x.data() + index * e.config.dim, e.weights.final_norm.data(),
                    e.config.dim, e.config.norm_eps, out.data());
}

int64_t Batch::context() const { return state_->context; }
int64_t Batch::max_rows() const { return state_->max_rows; }
void Batch::measure(PhaseTimes* times) { state_->times = times; }

void require_room(const Sequence& sequence, int64_t tokens) {
  const int64_t room = sequence.context() - sequence.position();
  if (tokens <= room) return;
  throw Error(ExitCode::kMemory,
              "the context is full (expected at most " + std::to_string(room) + " more tokens of " +
                  std::to_string(sequence.context()) + ", found " + std::to_string(tokens) + ")",
              "start over (/clear), or use a larger --ctx-size");
}

}  // namespace crumb

#include "apps/serve/scheduler.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "apps/serve/logprobs.h"
#include "apps/serve/slot.h"
#include "models/errors.h"

namespace crumb::serve {
namespace {

constexpr auto kBlockedPause = std::chrono::milliseconds(10);

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

BatchOptions batch_options(const SchedulerOptions& options) {
  BatchOptions batch;
  batch.context = options.context;
  batch.kv = options.kv;
  batch.max_rows = options.chunk + options.slots;
  return batch;
}

// How many rows of logits are the part's.
int64_t rows_of(const BatchPart& part) {
  return part.logits == LogitsOf::kAll    ? std::ssize(part.ids)
         : part.logits == LogitsOf::kLast ? 1
                                          : 0;
}

void tell(WorkRequest& request, JobEvent event) {
  if (request.cancelled) return;
  try {
    request.on_event(std::move(event));
  } catch (const std::exception&) {
    request.cancelled = true;  // no memory for its answer: sweep() frees the slot
  }
}

// 503, if there is memory to say so; the connection finds out if there is not.
void tell_busy(WorkRequest& request, std::size_t job, const char* why) {
  try {
    JobEvent event;
    event.kind = JobEvent::Kind::kFailed;
    event.job = job;
    event.error = too_busy(why);
    tell(request, std::move(event));
  } catch (const std::bad_alloc&) {
  }
  request.cancelled = true;
}

}  // namespace

struct Scheduler::State {
  State(std::shared_ptr<const Engine> the_engine, const SchedulerOptions& the_options,
        Metrics& the_metrics)
      : engine(std::move(the_engine)),
        options(the_options),
        metrics(the_metrics),
        batch(engine, batch_options(options)) {
    for (int i = 0; i < options.slots; ++i)
      slots.emplace_back(batch.make_sequence(), engine->config().vocab);
    published.resize(slots.size());
    publish();
  }

  void loop();
  // With the mutex held.
  void admit();
  std::deque<std::shared_ptr<Entry>>::iterator next_entry();
  bool waits_for_sibling(const Entry& entry) const;
  void start(const std::shared_ptr<Entry>& entry, const SlotChoice& choice);
  void publish();
  void fail_waiting();
  void drop(std::deque<std::shared_ptr<Entry>>::iterator it, const char* why);

  // On the loop's thread, without it.
  void sweep();
  bool step();
  std::vector<Slot*> compose(std::vector<BatchPart>& parts);
  void after_reading(Slot& slot, const BatchPart& part, int64_t row, int64_t offset);
  void prompt_logprobs(Slot& slot, int64_t count, int64_t row);
  void write_token(Slot& slot, int64_t row);
  int32_t choose_token(Slot& slot, int64_t row);
  void emit(const Active& active, JobEvent event);
  void finish(Slot& slot, FinishReason reason);
  void fail(Slot& slot, ApiError error);
  void fail_for_memory(Slot& slot);
  void release(Slot& slot);

  std::shared_ptr<const Engine> engine;
  SchedulerOptions options;
  Metrics& metrics;
  Batch batch;
  std::vector<Slot> slots;
  std::shared_ptr<const TokenTrie> trie;  // made for the first grammar
  uint64_t turn = 0;

  mutable std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::shared_ptr<Entry>> queue;  // entries with jobs that were not started
  int64_t in_system = 0;                     // requests that have not ended
  bool stopping = false, draining = false;
  std::vector<SlotState> published;
  std::thread thread;
};

// ---- the queue

// First come first served, but a request with fewer running texts goes before one with more.
std::deque<std::shared_ptr<Entry>>::iterator Scheduler::State::next_entry() {
  auto best = queue.end();
  for (auto it = queue.begin(); it != queue.end(); ++it) {
    if (waits_for_sibling(**it)) continue;
    if (best == queue.end() || (*it)->running < (*best)->running) best = it;
  }
  return best;
}

// Another answer to a prompt that is being read just now: once it is, it is a copy.
bool Scheduler::State::waits_for_sibling(const Entry& entry) const {
  const Job& next = entry.request->jobs[entry.next_job];
  if (!next.cache || next.prompt_logprobs || next.embed) return false;
  return std::any_of(slots.begin(), slots.end(), [&](const Slot& slot) {
    return slot.active && slot.active->entry.get() == &entry && slot.active->reading() &&
           slot.active->job().prompt_index == next.prompt_index;
  });
}

void Scheduler::State::admit() {
  if (draining) fail_waiting();
  for (auto it = next_entry(); it != queue.end(); it = next_entry()) {
    const std::shared_ptr<Entry> entry = *it;
    const Job& job = entry->request->jobs[entry->next_job];
    const bool cache = options.cache && job.cache && !job.prompt_logprobs && !job.embed;
    const SlotChoice choice = choose_slot(slots, job.prompt, cache);
    if (choice.slot == nullptr) return;
    try {
      start(entry, choice);
    } catch (const std::bad_alloc&) {
      choice.slot->sequence->truncate(0);
      choice.slot->held.clear();
      drop(it, "out of memory");
      continue;
    }
    if (entry->next_job == entry->request->jobs.size()) queue.erase(it);
  }
}

void Scheduler::State::start(const std::shared_ptr<Entry>& entry, const SlotChoice& choice) {
  Slot& slot = *choice.slot;
  if (choice.from != nullptr)
    slot.sequence->copy_prefix(*choice.from->sequence, choice.common);
  else
    slot.sequence->truncate(0);
  Active active;
  active.entry = entry;
  active.index = entry->next_job;
  const Job& job = active.job();
  const auto prompt = std::ssize(job.prompt);
  // The last token of an answer needs no place of its own: it is sampled, not read.
  const int64_t room = slot.sequence->context() - prompt + 1;
  active.limit = job.max_tokens < 0 ? room : std::min(room, job.max_tokens);
  active.history.reserve(static_cast<std::size_t>(prompt + std::max<int64_t>(active.limit, 0)));
  active.history.assign(job.prompt.begin(), job.prompt.end());
  active.read = choice.common;
  active.text = TextStream(job.stop);
  active.stats.prompt_tokens = prompt;
  active.stats.cached_tokens = choice.common;
  active.started = Clock::now();
  active.stats.queue_seconds = seconds_between(entry->submitted, active.started);
  if (job.grammar) {
    if (!trie) trie = std::make_shared<TokenTrie>(engine->tokenizer());
    active.matcher = std::make_unique<JsonMatcher>(job.grammar, engine->tokenizer(), trie,
                                                   engine->stop_tokens());
  }
  if (job.embed) active.hidden_sum.resize(static_cast<std::size_t>(engine->config().dim));
  metrics.prompt_read(0, choice.common);
  slot.used = ++turn;
  slot.held.clear();
  slot.sampler.restart(job.sampling);
  slot.active = std::move(active);
  ++entry->next_job;
  ++entry->running;
}

// What a request has not started yet fails; what runs of it ends with the next step.
void Scheduler::State::drop(std::deque<std::shared_ptr<Entry>>::iterator it, const char* why) {
  const std::shared_ptr<Entry> entry = *it;
  queue.erase(it);
  entry->left -= entry->request->jobs.size() - entry->next_job;
  if (entry->left == 0) --in_system;
  tell_busy(*entry->request, entry->next_job, why);
}

void Scheduler::State::fail_waiting() {
  for (auto it = queue.begin(); it != queue.end();) {
    const std::shared_ptr<Entry> entry = *it;
    if (entry->next_job > 0) {  // it runs: its other texts come too
      ++it;
      continue;
    }
    it = queue.erase(it);
    --in_system;
    tell_busy(*entry->request, 0, "the server is shutting down");
  }
}

void Scheduler::State::publish() {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Slot& slot = slots[i];
    SlotState& state = published[i];
    state = {
        static_cast<int>(i), slot.active.has_value(), false, slot.sequence->position(), 0, 0, 0};
    if (!slot.active) continue;
    state.reading = slot.active->reading();
    state.prompt_tokens = slot.active->stats.prompt_tokens;
    state.prompt_read = slot.active->read;
    state.generated = slot.active->stats.generated_tokens;
  }
}

// ---- steps

void Scheduler::State::loop() {
  std::unique_lock lock(mutex);
  while (!stopping) {
    lock.unlock();
    sweep();
    lock.lock();
    if (stopping) break;
    admit();
    publish();
    const bool busy = std::any_of(slots.begin(), slots.end(),
                                  [](const Slot& slot) { return slot.active.has_value(); });
    if (!busy) {
      wake.wait(lock, [&] { return stopping || !queue.empty(); });
      continue;
    }
    lock.unlock();
    bool stepped = false;
    try {
      stepped = step();
    } catch (const std::bad_alloc&) {  // before anything was done: the same again in a moment
    }
    lock.lock();
    if (!stepped && !stopping) wake.wait_for(lock, kBlockedPause);
  }
}

// Frees the slots of clients that have left and of requests whose time is over.
void Scheduler::State::sweep() {
  const auto now = Clock::now();
  for (Slot& slot : slots) {
    if (!slot.active) continue;
    const Entry& entry = *slot.active->entry;
    if (entry.request->cancelled) {
      release(slot);
    } else if (entry.request->max_seconds > 0 &&
               seconds_between(entry.submitted, now) > entry.request->max_seconds) {
      try {
        finish(slot, FinishReason::kLength);
      } catch (const std::bad_alloc&) {
        fail_for_memory(slot);
      }
    }
  }
}

std::vector<Slot*> Scheduler::State::compose(std::vector<BatchPart>& parts) {
  std::vector<Slot*> readers, order;
  std::vector<int64_t> left;
  for (Slot& slot : slots) {
    if (!slot.active) continue;
    const WorkRequest& request = *slot.active->entry->request;
    if (request.blocked && request.blocked()) continue;
    if (slot.active->reading()) {
      readers.push_back(&slot);
      continue;
    }
    parts.push_back({slot.sequence.get(), std::span(slot.active->history).last(1)});
    order.push_back(&slot);
  }
  std::sort(readers.begin(), readers.end(),
            [](const Slot* a, const Slot* b) { return a->used < b->used; });
  for (const Slot* slot : readers)
    left.push_back(slot->active->stats.prompt_tokens - slot->active->read);
  const auto share = share_rows(left, options.chunk);
  for (std::size_t i = 0; i < readers.size(); ++i) {
    if (share[i] == 0) continue;
    const Job& job = readers[i]->active->job();
    const bool ends = share[i] == left[i];
    const LogitsOf logits = job.prompt_logprobs  ? LogitsOf::kAll
                            : ends && !job.embed ? LogitsOf::kLast
                                                 : LogitsOf::kNone;
    parts.push_back({readers[i]->sequence.get(),
                     std::span(job.prompt)
                         .subspan(static_cast<std::size_t>(readers[i]->active->read),
                                  static_cast<std::size_t>(share[i])),
                     logits});
    order.push_back(readers[i]);
  }
  return order;
}

// False if nothing could be done: every client must first take what it has.
bool Scheduler::State::step() {
  std::vector<BatchPart> parts;
  const std::vector<Slot*> order = compose(parts);
  if (parts.empty()) return false;
  try {
    batch.step(parts);
  } catch (const std::exception& error) {
    for (Slot* slot : order) {
      slot->sequence->truncate(0);
      fail(*slot, internal_error(error.what()));
    }
    return true;
  }
  int64_t row = 0, offset = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Slot& slot = *order[i];
    // A client that left in this step gets nothing more; sweep() frees the slot.
    try {
      if (slot.active->reading())
        after_reading(slot, parts[i], row, offset);
      else
        write_token(slot, row);
    } catch (const std::bad_alloc&) {
      fail_for_memory(slot);
    }
    row += rows_of(parts[i]);
    offset += std::ssize(parts[i].ids);
  }
  return true;
}

void Scheduler::State::after_reading(Slot& slot, const BatchPart& part, int64_t row,
                                     int64_t offset) {
  Active& active = *slot.active;
  const Job& job = active.job();
  const auto count = std::ssize(part.ids);
  if (job.embed) {
    std::vector<float> state(active.hidden_sum.size());
    for (int64_t t = 0; t < count; ++t) {
      batch.hidden(offset + t, state);
      for (std::size_t d = 0; d < state.size(); ++d)
        active.hidden_sum[d] += static_cast<double>(state[d]);
    }
  }
  if (job.prompt_logprobs) prompt_logprobs(slot, count, row);
  active.read += count;
  metrics.prompt_read(count, 0);
  if (active.reading()) return;
  active.stats.prompt_seconds = seconds_between(active.started, Clock::now());
  if (job.embed) {
    JobEvent event;
    event.kind = JobEvent::Kind::kEmbedding;
    for (const double sum : active.hidden_sum)
      event.embedding.push_back(
          static_cast<float>(sum / static_cast<double>(active.stats.prompt_tokens)));
    emit(active, std::move(event));
    finish(slot, FinishReason::kStop);
  } else if (active.limit <= 0) {
    finish(slot, FinishReason::kLength);
  } else {
    write_token(slot, row + rows_of(part) - 1);
  }
}

void Scheduler::State::prompt_logprobs(Slot& slot, int64_t count, int64_t row) {
  const Active& active = *slot.active;
  const Job& job = active.job();
  JobEvent event;
  event.kind = JobEvent::Kind::kPrompt;
  for (int64_t t = 0; t < count; ++t) {
    const auto next = static_cast<std::size_t>(active.read + t + 1);
    if (next == job.prompt.size()) break;
    event.logprobs.push_back(logprob_of(batch.logits(row + t), batch.block_max(row + t),
                                        job.prompt[next], job.top_logprobs));
  }
  emit(active, std::move(event));
}

// -1 if no token fits the grammar.
int32_t Scheduler::State::choose_token(Slot& slot, int64_t row) {
  Active& active = *slot.active;
  const auto logits = batch.logits(row), block_max = batch.block_max(row);
  if (!active.matcher) return slot.sampler.sample(logits, active.history, block_max);
  active.matcher->set_budget(active.limit - active.stats.generated_tokens);
  const int32_t id = slot.sampler.sample(logits, active.history, block_max, *active.matcher);
  return id >= 0 && active.matcher->accept(id) ? id : -1;
}

void Scheduler::State::write_token(Slot& slot, int64_t row) {
  Active& active = *slot.active;
  const Job& job = active.job();
  if (!batch.finite(row)) {
    slot.sequence->truncate(0);
    return fail(slot, internal_error("a logit is not finite: the weights may be damaged"));
  }
  const int32_t id = choose_token(slot, row);
  if (id < 0) return fail(slot, internal_error("no token of the vocabulary fits the schema here"));
  const auto now = Clock::now();
  if (active.stats.generated_tokens++ == 0) {
    metrics.first_token(seconds_between(active.entry->submitted, now));
  } else {
    const double gap = seconds_between(active.last_token, now);
    metrics.token(gap);
    active.stats.decode_seconds += gap;
  }
  active.last_token = now;
  metrics.generated();
  active.history.push_back(id);

  JobEvent event;
  event.kind = JobEvent::Kind::kToken;
  event.id = id;
  event.stats = active.stats;
  if (job.top_logprobs >= 0)
    event.logprobs.push_back(
        logprob_of(batch.logits(row), batch.block_max(row), id, job.top_logprobs));
  const auto& stop = engine->stop_tokens();
  const bool ends =
      (!job.ignore_eos || active.matcher) && std::binary_search(stop.begin(), stop.end(), id);
  if (!ends && !engine->tokenizer().is_control(id))
    event.text = active.text.push(engine->tokenizer().bytes(id));
  emit(active, std::move(event));
  if (ends || active.text.stopped() || (active.matcher && active.matcher->must_end()))
    return finish(slot, FinishReason::kStop);
  if (active.stats.generated_tokens != active.limit) return;
  if (active.matcher && !active.matcher->may_end())  // never half an answer
    fail(slot, {400, "the answer could not be complete within its tokens", "max_tokens",
                "incomplete_answer"});
  else
    finish(slot, active.limit == job.max_tokens ? FinishReason::kLength : FinishReason::kContext);
}

// ---- ends

void Scheduler::State::emit(const Active& active, JobEvent event) {
  event.job = active.index;
  tell(*active.entry->request, std::move(event));
}

void Scheduler::State::finish(Slot& slot, FinishReason reason) {
  JobEvent event;
  event.kind = JobEvent::Kind::kDone;
  event.text = slot.active->text.finish();
  event.reason = reason;
  event.stats = slot.active->stats;
  emit(*slot.active, std::move(event));
  release(slot);
}

void Scheduler::State::fail(Slot& slot, ApiError error) {
  JobEvent event;
  event.kind = JobEvent::Kind::kFailed;
  event.error = std::move(error);
  emit(*slot.active, std::move(event));
  release(slot);
}

// Says so if there is memory for that; sweep() frees the slot.
void Scheduler::State::fail_for_memory(Slot& slot) {
  slot.sequence->truncate(0);
  tell_busy(*slot.active->entry->request, slot.active->index, "out of memory");
}

// The slot is free; what it has read stays.
void Scheduler::State::release(Slot& slot) {
  slot.held = std::move(slot.active->history);
  slot.held.resize(static_cast<std::size_t>(slot.sequence->position()));
  const std::shared_ptr<Entry> entry = std::move(slot.active->entry);
  slot.active.reset();
  const std::lock_guard lock(mutex);
  --entry->running;
  if (--entry->left == 0) --in_system;
}

// ---- other threads

Scheduler::Scheduler(std::shared_ptr<const Engine> engine, const SchedulerOptions& options,
                     Metrics& metrics)
    : state_(std::make_unique<State>(std::move(engine), options, metrics)) {
  state_->thread = std::thread([state = state_.get()] { state->loop(); });
}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->wake.notify_all();
  state_->thread.join();
}

void Scheduler::submit(std::shared_ptr<WorkRequest> request) {
  auto entry = std::make_shared<Entry>();
  entry->left = request->jobs.size();
  entry->request = std::move(request);
  entry->submitted = Clock::now();
  {
    const std::lock_guard lock(state_->mutex);
    if (entry->request->cancelled) return;  // its client left meanwhile
    if (state_->draining) throw too_busy("the server is shutting down");
    if (state_->in_system >= state_->options.slots + state_->options.queue)
      throw too_busy("all slots are busy and the queue is full");
    ++state_->in_system;
    state_->queue.push_back(std::move(entry));
  }
  state_->wake.notify_all();
}

void Scheduler::cancel(const std::shared_ptr<WorkRequest>& request) {
  request->cancelled = true;
  {
    const std::lock_guard lock(state_->mutex);
    auto& queue = state_->queue;
    const auto found = std::find_if(queue.begin(), queue.end(),
                                    [&](const auto& entry) { return entry->request == request; });
    if (found != queue.end()) {
      const std::shared_ptr<Entry> entry = *found;
      queue.erase(found);
      entry->left -= entry->request->jobs.size() - entry->next_job;
      if (entry->left == 0) --state_->in_system;
    }
  }
  state_->wake.notify_all();
}

void Scheduler::drain() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->draining = true;
  }
  state_->wake.notify_all();
}

std::vector<SlotState> Scheduler::slots() const {
  const std::lock_guard lock(state_->mutex);
  return state_->published;
}

int64_t Scheduler::waiting() const {
  const std::lock_guard lock(state_->mutex);
  return std::count_if(state_->queue.begin(), state_->queue.end(),
                       [](const auto& entry) { return entry->next_job == 0; });
}

int64_t Scheduler::in_flight() const {
  const std::lock_guard lock(state_->mutex);
  return state_->in_system;
}

int64_t Scheduler::context() const { return state_->batch.context(); }
int Scheduler::slot_count() const { return static_cast<int>(state_->slots.size()); }
int64_t Scheduler::kv_bytes() const {
  return state_->slots.front().sequence->kv_bytes() * slot_count();
}

}  // namespace crumb::serve

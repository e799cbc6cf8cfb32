#include "bench/eval/generation.h"

#include <algorithm>
#include <optional>

#include "engine/batch.h"
#include "engine/chat_prompt.h"
#include "engine/progress.h"
#include "engine/text_stream.h"
#include "models/errors.h"
#include "models/json.h"

namespace crumb::eval {
namespace {

// Tokens of a step: all answers' next ones, and as much of new prompts as fits beside them.
constexpr std::size_t kStepTokens = 256;
// An answer that would find this much more of its prompt in a cache soon waits for it.
constexpr std::size_t kWorthWaiting = 64;

std::size_t common(std::span<const int32_t> a, std::span<const int32_t> b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

// One plan being answered, and what its sequence holds between two plans.
struct Slot {
  std::unique_ptr<Sequence> sequence;
  std::vector<int32_t>
      ids;  // prompt and answer so far; the sequence holds the first `read` of them
  std::size_t read = 0;

  // Of the plan, while there is one.
  bool busy = false;
  std::size_t plan = 0;
  std::vector<Answer> answers;
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  Answer answer;
  int64_t limit = 0;  // tokens of this answer at most
  TextStream stream;
};

}  // namespace

struct AnswerWriter::State {
  State(std::shared_ptr<const Engine> the_engine, kernels::KvType kv, int64_t side_by_side)
      : engine(std::move(the_engine)),
        batch(engine, {0, kv, static_cast<int64_t>(kStepTokens)}),
        slots(static_cast<std::size_t>(side_by_side)) {}

  std::shared_ptr<const Engine> engine;
  Batch batch;
  std::optional<ChatPrompt> chat;  // made when the first chat plan comes
  std::vector<Slot> slots;
  int64_t run = 0, reused = 0, dropped = 0;

  std::vector<int32_t> prompt_of(const GenerationPlan& plan, std::size_t turn,
                                 nlohmann::ordered_json& messages);
  bool start(const GenerationPlan& plan, std::size_t index);
  void begin_answer(Slot& slot, const GenerationPlan& plan, std::vector<int32_t> prompt);
  bool take(Slot& slot, const GenerationPlan& plan, int32_t id);
  bool step(std::span<const GenerationPlan* const> plans, const Done& done);
};

// The tokens of the prompt of a turn; a chat's message is added to `messages`.
std::vector<int32_t> AnswerWriter::State::prompt_of(const GenerationPlan& plan, std::size_t turn,
                                                    nlohmann::ordered_json& messages) {
  tokenizer::EncodeReport report;
  std::vector<int32_t> ids;
  if (plan.chat) {
    if (!chat) chat.emplace(engine);
    messages.push_back({{"role", "user"}, {"content", plan.turns[turn]}});
    ids = engine->tokenizer().encode(
        chat->render({{"messages", messages}, {"add_generation_prompt", true}}), &report);
  } else {
    ids = engine->tokenizer().encode(plan.turns[turn], false, &report);
  }
  dropped += report.dropped_bytes;
  if (ids.empty()) throw FormatError("empty prompt (expected at least one token, found none)");
  return ids;
}

// The slot's sequence holds the first `slot.read` tokens of the prompt.
void AnswerWriter::State::begin_answer(Slot& slot, const GenerationPlan& plan,
                                       std::vector<int32_t> prompt) {
  // The last token of an answer needs no place of its own: it is chosen, not read.
  const int64_t room = batch.context() - std::ssize(prompt) + 1;
  slot.limit = std::min(room, plan.max_tokens);
  slot.answer = {
      {}, slot.limit == plan.max_tokens ? FinishReason::kLength : FinishReason::kContext, 0};
  slot.stream = TextStream(plan.stop);
  reused += static_cast<int64_t>(slot.read);
  slot.ids = std::move(prompt);
}

// Gives a plan a free slot, with what any slot has read of its prompt. False: no slot is free, or
// one is about to read a longer part of the prompt.
bool AnswerWriter::State::start(const GenerationPlan& plan, std::size_t index) {
  if (std::ranges::all_of(slots, &Slot::busy)) return false;
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  const int64_t dropped_before = dropped;
  std::vector<int32_t> prompt = prompt_of(plan, 0, messages);
  // At least one token must be read for its logits.
  const auto useful = std::span(prompt).first(prompt.size() - 1);
  std::size_t most = 0, soon = 0, free = slots.size(), from = slots.size();
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Slot& slot = slots[i];
    const std::size_t same = common(slot.ids, useful), have = std::min(same, slot.read);
    soon = std::max(soon, same);
    if (from == slots.size() || have > most || (have == most && !slot.busy && slots[from].busy)) {
      from = i;
      most = have;
    }
    if (!slot.busy && (free == slots.size() || slot.read < slots[free].read)) free = i;
  }
  if (soon > most + kWorthWaiting) {
    dropped = dropped_before;
    return false;
  }
  if (!slots[from].busy) free = from;
  Slot& slot = slots[free];
  if (!slot.sequence) slot.sequence = batch.make_sequence();
  if (most > 0)
    slot.sequence->copy_prefix(*slots[from].sequence, static_cast<int64_t>(most));
  else
    slot.sequence->truncate(0);
  slot.read = most;
  slot.busy = true;
  slot.plan = index;
  slot.answers.clear();
  slot.messages = std::move(messages);
  begin_answer(slot, plan, std::move(prompt));
  return true;
}

// The next token of an answer; false if it was the last one.
bool AnswerWriter::State::take(Slot& slot, const GenerationPlan& plan, int32_t id) {
  Answer& answer = slot.answer;
  const auto& stop = engine->stop_tokens();
  bool over = true;
  if (answer.tokens < slot.limit) {
    slot.ids.push_back(id);
    ++answer.tokens;
    if (std::binary_search(stop.begin(), stop.end(), id)) {
      answer.reason = FinishReason::kStop;
    } else {
      if (!engine->tokenizer().is_control(id))
        answer.text += slot.stream.push(engine->tokenizer().bytes(id));
      if (slot.stream.stopped()) answer.reason = FinishReason::kStop;
      over = slot.stream.stopped() || answer.tokens == slot.limit;
    }
  }
  if (!over) return true;
  answer.text += slot.stream.finish();
  slot.messages.push_back({{"role", "assistant"}, {"content", answer.text}});
  slot.answers.push_back(std::move(answer));
  const std::size_t turn = slot.answers.size();
  if (turn == plan.turns.size()) return false;
  auto prompt = prompt_of(plan, turn, slot.messages);
  slot.read = std::min(common(std::span(slot.ids).first(slot.read), prompt), prompt.size() - 1);
  slot.sequence->truncate(static_cast<int64_t>(slot.read));
  begin_answer(slot, plan, std::move(prompt));
  return true;
}

// Every answer goes on by a token, prompts by what fits. False: nothing is left.
bool AnswerWriter::State::step(std::span<const GenerationPlan* const> plans, const Done& done) {
  std::vector<BatchPart> parts;
  std::vector<Slot*> taking;  // of each part
  std::size_t tokens = 0;
  const auto add = [&](Slot& slot, std::size_t n) {
    n = std::min(n, kStepTokens - tokens);
    if (n == 0) return;
    const bool whole = slot.read + n == slot.ids.size();
    parts.push_back({slot.sequence.get(), std::span(slot.ids).subspan(slot.read, n),
                     whole ? LogitsOf::kLast : LogitsOf::kNone});
    taking.push_back(&slot);
    tokens += n;
  };
  // First those that have one to read.
  for (const bool single : {true, false})
    for (Slot& slot : slots) {
      const std::size_t left = slot.ids.size() - slot.read;
      if (slot.busy && left > 0 && single == (left == 1)) add(slot, left);
    }
  if (parts.empty()) return false;
  batch.step(parts);
  run += static_cast<int64_t>(tokens);
  int64_t row = -1;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Slot& slot = *taking[i];
    slot.read += parts[i].ids.size();
    if (parts[i].logits == LogitsOf::kNone) continue;
    if (!batch.finite(++row))
      throw Error(ExitCode::kNumeric, "a logit is not finite",
                  "the weights may be damaged: crumb inspect --verify FILE");
    const auto logits = batch.logits(row);
    const auto id = engine->backend().argmax(logits.data(), std::ssize(logits));
    if (take(slot, *plans[slot.plan], static_cast<int32_t>(id))) continue;
    slot.busy = false;
    slot.ids.resize(slot.read);
    done(slot.plan, std::move(slot.answers));
  }
  return true;
}

AnswerWriter::AnswerWriter(std::shared_ptr<const Engine> engine, kernels::KvType kv,
                           int64_t side_by_side)
    : state_(std::make_unique<State>(std::move(engine), kv, side_by_side)) {}
AnswerWriter::~AnswerWriter() = default;

int64_t AnswerWriter::tokens_run() const { return state_->run; }
int64_t AnswerWriter::tokens_reused() const { return state_->reused; }
int64_t AnswerWriter::dropped_bytes() const { return state_->dropped; }

void AnswerWriter::answer(std::span<const GenerationPlan* const> plans,
                          const std::function<bool()>& keep_going, const Done& done) {
  State& s = *state_;
  // What an earlier call that was ended left behind.
  for (Slot& slot : s.slots)
    if (std::exchange(slot.busy, false)) slot.ids.resize(slot.read);
  std::size_t next = 0;
  do {
    if (keep_going && !keep_going()) throw Interrupted{};
    while (next < plans.size() && s.start(*plans[next], next)) ++next;
  } while (s.step(plans, done) || next < plans.size());
}

std::vector<Answer> AnswerWriter::answer(const GenerationPlan& plan,
                                         const std::function<bool()>& keep_going) {
  const GenerationPlan* const one[] = {&plan};
  std::vector<Answer> result;
  answer(one, keep_going,
         [&](std::size_t, std::vector<Answer> answers) { result = std::move(answers); });
  return result;
}

bool looped(std::string_view text) {
  constexpr std::size_t kLeast = 120, kEnd = 40, kTimes = 3;
  // Characters, not bytes: the end of the last 40.
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) starts.push_back(i);
  if (starts.size() <= kLeast) return false;
  const std::string_view end = text.substr(starts[starts.size() - kEnd]);
  std::size_t times = 0;
  for (std::size_t at = 0; (at = text.find(end, at)) != std::string_view::npos; ++at) ++times;
  return times >= kTimes;
}

}  // namespace crumb::eval

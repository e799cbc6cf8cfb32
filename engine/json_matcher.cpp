#include "engine/json_matcher.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "engine/json_program.h"

namespace crumb {
namespace {

using json::Instruction;
using json::kNever;
using json::Program;

constexpr int kMaxVisits = 1500;  // nodes of the trie that list() looks at
constexpr int kFewSteps = 1000;
constexpr std::size_t kMaxThreads = 4096;  // more are dropped: a text is refused rather than wrong

// Where to go on when a value is done. Equal frames are one object.
struct Frame {
  int32_t pc, counter;
  const Frame* parent;
  int64_t need;  // least bytes to the end of the text from here
};

struct Thread {
  int32_t pc, counter;
  const Frame* frame;
  bool operator==(const Thread&) const = default;
};
using Threads = std::vector<Thread>;

struct ThreadHash {
  std::size_t operator()(const Thread& t) const {
    uint64_t hash = reinterpret_cast<uintptr_t>(t.frame);
    for (const int32_t part : {t.pc, t.counter})
      hash = (hash ^ static_cast<uint32_t>(part)) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
  }
};

}  // namespace

struct JsonMatcher::State {
  std::shared_ptr<const JsonGrammar> grammar;
  const Program& program;
  const tokenizer::Tokenizer& tokenizer;
  std::shared_ptr<const TokenTrie> trie;
  std::vector<int32_t> stop;
  int64_t budget = kNever;
  Threads threads;               // at bytes or at the end
  std::vector<Threads> scratch;  // one a byte of depth
  Threads open;                  // of close()
  std::unordered_set<Thread, ThreadHash> seen;
  std::unordered_multimap<uint64_t, std::unique_ptr<Frame>> frames;

  const Frame* frame(int32_t pc, int32_t counter, const Frame* parent);
  void close(Thread from, Threads& into);
  void advance(const Threads& from, uint8_t byte, Threads& into);
  int64_t need(const Thread& thread) const {
    return std::min(kNever, program.need(thread.pc, thread.counter) +
                                (thread.frame != nullptr ? thread.frame->need : 0));
  }
  int64_t need(const Threads& all) const {
    int64_t least = kNever;
    for (const Thread& thread : all) least = std::min(least, need(thread));
    return least;
  }
  bool at_end(const Threads& all) const {
    return std::any_of(all.begin(), all.end(), [&](const Thread& thread) {
      return program.code[static_cast<std::size_t>(thread.pc)].op == Instruction::Op::kAccept;
    });
  }
  Threads& scratch_at(std::size_t depth) {
    if (scratch.size() <= depth) scratch.resize(depth + 1);
    return scratch[depth];
  }
  const Threads* run(std::string_view bytes);
  bool affordable(const Threads& after) const { return need(after) <= budget - 1; }
  bool walk(int32_t node, const Threads& from, std::size_t depth, int& visits,
            std::vector<int32_t>& ids, std::vector<int32_t>& dear);
};

const Frame* JsonMatcher::State::frame(int32_t pc, int32_t counter, const Frame* parent) {
  uint64_t hash = reinterpret_cast<uintptr_t>(parent);
  for (const int32_t part : {pc, counter})
    hash = (hash ^ static_cast<uint32_t>(part)) * 0x9E3779B97F4A7C15u;
  const auto [begin, end] = frames.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (it->second->pc == pc && it->second->counter == counter && it->second->parent == parent)
      return it->second.get();
  const int64_t rest = parent != nullptr ? parent->need : 0;
  auto made = std::make_unique<Frame>(
      Frame{pc, counter, parent, std::min(kNever, program.need(pc, counter) + rest)});
  return frames.emplace(hash, std::move(made))->second.get();
}

// Follows everything that takes no byte. A schema may lead to one place in very many ways: where
// there are more than a few, what was seen is not followed again.
void JsonMatcher::State::close(Thread from, Threads& into) {
  open.assign(1, from);
  if (!seen.empty()) seen.clear();
  for (int steps = 0; !open.empty(); ++steps) {
    const Thread at = open.back();
    open.pop_back();
    if (steps > kFewSteps && !seen.insert(at).second) continue;
    const Instruction& i = program.code[static_cast<std::size_t>(at.pc)];
    switch (i.op) {
      case Instruction::Op::kBytes:
      case Instruction::Op::kAccept:
        if (into.size() < kMaxThreads && std::find(into.begin(), into.end(), at) == into.end())
          into.push_back(at);
        break;
      case Instruction::Op::kSplit:
        open.push_back({i.b, at.counter, at.frame});
        open.push_back({i.a, at.counter, at.frame});
        break;
      case Instruction::Op::kCall:
        open.push_back(
            {program.entries[static_cast<std::size_t>(i.a)], 0, frame(i.b, at.counter, at.frame)});
        break;
      case Instruction::Op::kReturn:
        open.push_back({at.frame->pc, at.frame->counter, at.frame->parent});
        break;
      case Instruction::Op::kCount:
        open.push_back({i.a, std::min(at.counter + 1, i.high), at.frame});
        break;
      case Instruction::Op::kLoop:
        if (at.counter >= i.low) open.push_back({i.b, 0, at.frame});
        if (at.counter < i.high) open.push_back({i.a, at.counter, at.frame});
        break;
    }
  }
}

void JsonMatcher::State::advance(const Threads& from, uint8_t byte, Threads& into) {
  into.clear();
  for (const Thread& thread : from) {
    const Instruction& i = program.code[static_cast<std::size_t>(thread.pc)];
    if (i.op == Instruction::Op::kBytes && program.sets[static_cast<std::size_t>(i.set)][byte])
      close({i.a, thread.counter, thread.frame}, into);
  }
}

// The threads behind all of `bytes`, null if there are none.
const Threads* JsonMatcher::State::run(std::string_view bytes) {
  const Threads* at = &threads;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    Threads& next = scratch_at(i % 2);
    advance(*at, static_cast<uint8_t>(bytes[i]), next);
    if (next.empty()) return nullptr;
    at = &next;
  }
  return at;
}

JsonMatcher::JsonMatcher(std::shared_ptr<const JsonGrammar> grammar,
                         const tokenizer::Tokenizer& tokenizer,
                         std::shared_ptr<const TokenTrie> trie, std::vector<int32_t> stop)
    : state_(new State{grammar,
                       grammar->program(),
                       tokenizer,
                       std::move(trie),
                       std::move(stop),
                       kNever,
                       {},
                       {},
                       {},
                       {},
                       {}}) {
  state_->scratch.resize(64);
  state_->close({state_->program.start, 0, nullptr}, state_->threads);
}

JsonMatcher::~JsonMatcher() = default;

void JsonMatcher::set_budget(int64_t tokens) { state_->budget = tokens; }
bool JsonMatcher::may_end() const { return state_->at_end(state_->threads); }
bool JsonMatcher::must_end() const { return may_end() && state_->threads.size() == 1; }
int64_t JsonMatcher::need() const { return state_->need(state_->threads); }

bool JsonMatcher::accept_bytes(std::string_view bytes) {
  const Threads* after = state_->run(bytes);
  if (after == nullptr) return false;
  const Threads kept = *after;
  state_->threads = kept;
  return true;
}

bool JsonMatcher::accept(int32_t id) {
  if (std::binary_search(state_->stop.begin(), state_->stop.end(), id)) return may_end();
  const std::string_view bytes = state_->tokenizer.bytes(id);
  return !bytes.empty() && !state_->tokenizer.is_control(id) && accept_bytes(bytes);
}

bool JsonMatcher::allows(int32_t id) {
  State& s = *state_;
  if (std::binary_search(s.stop.begin(), s.stop.end(), id)) return may_end();
  const std::string_view bytes = s.tokenizer.bytes(id);
  if (bytes.empty() || s.tokenizer.is_control(id)) return false;
  const Threads* after = s.run(bytes);
  return after != nullptr && s.affordable(*after);
}

// False if there is more to look at than is worth it.
bool JsonMatcher::State::walk(int32_t node, const Threads& from, std::size_t depth, int& visits,
                              std::vector<int32_t>& ids, std::vector<int32_t>& dear) {
  for (int32_t child = trie->node(node).child; child >= 0; child = trie->node(child).sibling) {
    if (++visits > kMaxVisits) return false;
    if (depth >= scratch.size()) return false;
    Threads& next = scratch[depth];
    advance(from, trie->node(child).byte, next);
    if (next.empty()) continue;
    if (const int32_t token = trie->node(child).token; token >= 0)
      (affordable(next) ? ids : dear).push_back(token);
    if (!walk(child, next, depth + 1, visits, ids, dear)) return false;
  }
  return true;
}

bool JsonMatcher::list(std::vector<int32_t>& ids) {
  State& s = *state_;
  ids.clear();
  std::vector<int32_t> dear;
  int visits = 0;
  if (!s.walk(TokenTrie::kRoot, s.threads, 0, visits, ids, dear)) return false;
  if (may_end()) ids.insert(ids.end(), s.stop.begin(), s.stop.end());
  // Nothing that could still be finished: better a text that is cut than none.
  if (ids.empty()) ids = std::move(dear);
  return true;
}

}  // namespace crumb

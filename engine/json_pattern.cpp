#include "engine/json_pattern.h"

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "engine/json_regex.h"

namespace crumb::json {
namespace {

constexpr std::size_t kMaxNodes = 20'000;  // of the nondeterministic machine
constexpr std::size_t kMaxStates = 20'000;

// ---- the machine: nodes of one class of characters, or of two ways without one

struct Machine {
  struct State {
    std::size_t set = SIZE_MAX;  // SIZE_MAX: takes nothing
    int32_t a = -1, b = -1;      // where to go on
  };
  std::vector<State> states;

  int32_t add(State state) {
    if (states.size() >= kMaxNodes) throw PatternError("the pattern is too large");
    states.push_back(state);
    return static_cast<int32_t>(states.size()) - 1;
  }

  // Built backwards: what begins at the result goes on at `next`.
  int32_t build(const std::vector<RegexNode>& nodes, int32_t at, int32_t next) {
    const RegexNode& node = nodes[static_cast<std::size_t>(at)];
    switch (node.kind) {
      case RegexNode::Kind::kClass:
        return add({node.set, next, -1});
      case RegexNode::Kind::kSequence:
        for (std::size_t i = node.parts.size(); i-- > 0;) next = build(nodes, node.parts[i], next);
        return next;
      case RegexNode::Kind::kChoice: {
        int32_t all = build(nodes, node.parts.back(), next);
        for (std::size_t i = node.parts.size() - 1; i-- > 0;)
          all = add({SIZE_MAX, build(nodes, node.parts[i], next), all});
        return all;
      }
      case RegexNode::Kind::kRepeat:
        break;
    }
    if (node.high == kMany) {
      const int32_t loop = add({SIZE_MAX, next, -1});
      const int32_t body = build(nodes, node.parts[0], loop);
      states[static_cast<std::size_t>(loop)].b = body;
      next = loop;
    } else {
      const int32_t end = next;
      for (int32_t i = node.low; i < node.high; ++i)
        next = add({SIZE_MAX, build(nodes, node.parts[0], next), end});
    }
    for (int32_t i = 0; i < node.low; ++i) next = build(nodes, node.parts[0], next);
    return next;
  }
};

// ---- states: sets of nodes, with how many characters there were as far as that matters

class Determined {
 public:
  Determined(Builder& builder, const Machine& machine, const std::vector<Class>& sets,
             int32_t start, int32_t end, int32_t low, int32_t high)
      : builder_(builder), machine_(machine), end_(end), low_(low), high_(high) {
    divide(sets);
    seen_.assign(machine.states.size(), 0);
    std::vector<int32_t> first;
    ++round_;
    close(start, first);
    state_of(std::move(first), 0);
    // What is found is appended behind.
    for (std::size_t s = 0; s < states.size(); ++s) follow(s);
    measure();
  }

  struct State {
    std::vector<int32_t> nodes;
    int32_t count = 0;
    bool accepts = false;
    int32_t distance = -1;                                // characters to the nearest end; -1: none
    std::vector<std::pair<std::size_t, std::size_t>> to;  // part of the characters, state
  };
  std::vector<State> states;  // the first is where to begin
  std::vector<Range> parts;   // of the characters: all of one part behave alike

 private:
  void divide(const std::vector<Class>& sets) {
    std::vector<char32_t> cuts;
    for (const Class& set : sets)
      for (const Range& r : set) {
        cuts.push_back(r.first);
        cuts.push_back(r.last + 1);
      }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) parts.push_back({cuts[i], cuts[i + 1] - 1});
    parts_of_.resize(sets.size());
    for (std::size_t s = 0; s < sets.size(); ++s)
      for (const Range& r : sets[s]) {
        const auto begin = std::lower_bound(cuts.begin(), cuts.end(), r.first) - cuts.begin();
        for (auto p = static_cast<std::size_t>(begin); p < parts.size() && parts[p].last <= r.last;
             ++p) {
          work(1);
          parts_of_[s].push_back(p);
        }
      }
  }

  void work(int64_t more) {
    if (!builder_.spend(more)) throw PatternError("the pattern is too complex");
  }

  void close(int32_t from, std::vector<int32_t>& into) {
    open_.assign(1, from);
    while (!open_.empty()) {
      const int32_t at = open_.back();
      open_.pop_back();
      work(1);
      if (seen_[static_cast<std::size_t>(at)] == round_) continue;
      seen_[static_cast<std::size_t>(at)] = round_;
      const Machine::State& state = machine_.states[static_cast<std::size_t>(at)];
      if (state.set != SIZE_MAX || at == end_) {
        into.push_back(at);
        continue;
      }
      if (state.b >= 0) open_.push_back(state.b);
      if (state.a >= 0) open_.push_back(state.a);
    }
  }

  std::size_t state_of(std::vector<int32_t> nodes, int32_t count) {
    std::sort(nodes.begin(), nodes.end());
    work(4 * std::ssize(nodes));  // looking it up
    const auto [found, fresh] = known_.try_emplace({nodes, count}, states.size());
    if (fresh) {
      if (states.size() >= kMaxStates) throw PatternError("the pattern is too complex");
      State state;
      state.accepts = count >= low_ && std::binary_search(nodes.begin(), nodes.end(), end_);
      state.nodes = std::move(nodes);
      state.count = count;
      states.push_back(std::move(state));
    }
    return found->second;
  }

  void follow(std::size_t s) {
    const int32_t count = states[s].count;
    if (high_ != kMany && count >= high_) return;
    std::map<std::size_t, std::vector<int32_t>> reached;  // by part: nodes behind it
    for (const int32_t at : states[s].nodes) {
      const Machine::State& node = machine_.states[static_cast<std::size_t>(at)];
      if (node.set == SIZE_MAX) continue;
      for (const std::size_t part : parts_of_[node.set]) {
        work(1);
        reached[part].push_back(node.a);
      }
    }
    // Beyond the bounds the number of characters says no more.
    const int32_t next = high_ == kMany ? std::min(count + 1, low_) : count + 1;
    std::map<std::vector<int32_t>, std::size_t> same;  // parts that lead to the same nodes
    for (auto& [part, behind] : reached) {
      const auto found = same.find(behind);
      if (found != same.end()) {
        states[s].to.emplace_back(part, found->second);
        continue;
      }
      std::vector<int32_t> nodes;
      ++round_;
      for (const int32_t at : behind) close(at, nodes);
      const std::size_t target = state_of(std::move(nodes), next);
      states[s].to.emplace_back(part, target);
      same.emplace(std::move(behind), target);
    }
  }

  void measure() {
    std::vector<std::vector<std::size_t>> from(states.size());
    std::deque<std::size_t> open;
    for (std::size_t s = 0; s < states.size(); ++s) {
      for (const auto& [part, target] : states[s].to) from[target].push_back(s);
      if (!states[s].accepts) continue;
      states[s].distance = 0;
      open.push_back(s);
    }
    for (; !open.empty(); open.pop_front())
      for (const std::size_t s : from[open.front()]) {
        if (states[s].distance >= 0) continue;
        states[s].distance = states[open.front()].distance + 1;
        open.push_back(s);
      }
  }

  Builder& builder_;  // knows how much work is left
  const Machine& machine_;
  int32_t end_, low_, high_;
  std::vector<std::vector<std::size_t>> parts_of_;  // of each class
  std::vector<int64_t> seen_;
  int64_t round_ = 0;
  std::vector<int32_t> open_;
  std::map<std::pair<std::vector<int32_t>, int32_t>, std::size_t> known_;
};

// ---- characters as JSON writes them

// UTF-8 of first..last, none of them ASCII: ranges of which every byte runs through all its values.
void utf8_ways(Builder& b, char32_t first, char32_t last, int32_t next,
               std::vector<int32_t>& ways) {
  for (const char32_t top : {char32_t{0x7FF}, char32_t{0xFFFF}})
    if (first <= top && last > top) {
      utf8_ways(b, first, top, next, ways);
      return utf8_ways(b, top + 1, last, next, ways);
    }
  const int more = last <= 0x7FF ? 1 : last <= 0xFFFF ? 2 : 3;
  for (int i = 1; i <= more; ++i) {
    const char32_t low = (char32_t{1} << (6 * i)) - 1;
    if ((first & ~low) == (last & ~low)) continue;
    if ((first & low) != 0) {
      utf8_ways(b, first, first | low, next, ways);
      return utf8_ways(b, (first | low) + 1, last, next, ways);
    }
    if ((last & low) != low) {
      utf8_ways(b, first, (last & ~low) - 1, next, ways);
      return utf8_ways(b, last & ~low, last, next, ways);
    }
  }
  int32_t place = next;
  for (int i = 0; i < more; ++i) {
    const auto from = static_cast<int>(first >> (6 * i) & 0x3F);
    const auto to = static_cast<int>(last >> (6 * i) & 0x3F);
    place = b.range(0x80 | from, 0x80 | to, place);
  }
  const int mark = more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0;
  ways.push_back(b.range(mark | static_cast<int>(first >> (6 * more)),
                         mark | static_cast<int>(last >> (6 * more)), place));
}

void escaped_way(Builder& b, char32_t c, int32_t next, std::vector<int32_t>& ways) {
  constexpr std::string_view kPlain = "\"\\\b\t\n\f\r", kWritten = "\"\\btnfr";
  const std::size_t at = kPlain.find(static_cast<char>(c));
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text = "\\";
  if (at != kPlain.npos)
    text += kWritten[at];
  else
    text += std::string("u00") + kHex[c >> 4] + kHex[c & 15];
  ways.push_back(b.literal(text, next));
}

// One character of the ranges, then `next`.
void character_ways(Builder& b, const Class& set, int32_t next, std::vector<int32_t>& ways) {
  ByteSet plain;
  for (const Range& r : set) {
    for (char32_t c = r.first; c <= std::min<char32_t>(r.last, 0x7F); ++c) {
      if (c < 0x20 || c == '"' || c == '\\' || c == 0x7F)
        escaped_way(b, c, next, ways);
      else
        plain.set(c);
    }
    if (r.last >= 0x80) utf8_ways(b, std::max<char32_t>(r.first, 0x80), r.last, next, ways);
  }
  if (plain.any()) ways.push_back(b.bytes(plain, next));
}

}  // namespace

int32_t pattern_string(Builder& b, std::string_view pattern, int32_t low, int32_t high,
                       int32_t next) {
  const Regex regex = parse_regex(pattern);
  Machine machine;
  const int32_t end = machine.add({});
  const int32_t start = machine.build(regex.nodes, regex.root, end);
  const Determined found(b, machine, regex.sets, start, end, low, high);
  const auto& states = found.states;
  if (states[0].distance < 0) throw PatternError("no string matches it and has such a length");

  // The nearer its end the earlier a state is written: the least costs are found in one pass then.
  std::vector<std::size_t> order;
  for (std::size_t s = 0; s < states.size(); ++s)
    if (states[s].distance >= 0) order.push_back(s);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) {
    return states[x].distance < states[y].distance;
  });
  std::vector<int32_t> entries(states.size(), -1);
  const int32_t quote = b.byte('"', next);
  for (const std::size_t s : order) {
    std::map<std::size_t, Class> by_target;
    for (const auto& [part, target] : states[s].to)
      if (states[target].distance >= 0) by_target[target].push_back(found.parts[part]);
    std::vector<int32_t> ways;
    if (states[s].accepts) ways.push_back(quote);
    for (const auto& [target, set] : by_target) {
      if (entries[target] < 0) entries[target] = b.split(0, 0);  // closed when it is written
      character_ways(b, normal(set), entries[target], ways);
    }
    const int32_t entry = b.any_of(ways);
    if (entries[s] < 0)
      entries[s] = entry;
    else
      b.redirect(entries[s], entry, entry);
  }
  return b.byte('"', entries[0]);
}

}  // namespace crumb::json

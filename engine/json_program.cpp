#include "engine/json_program.h"

#include <algorithm>
#include <string>

#include "engine/json_grammar.h"

namespace crumb::json {
namespace {

constexpr std::size_t kMaxInstructions = 200'000;
constexpr int kMaxIndent = 20;

ByteSet set_of(int first, int last) {
  ByteSet set;
  for (int byte = first; byte <= last; ++byte) set.set(static_cast<std::size_t>(byte));
  return set;
}

}  // namespace

int64_t Program::need(int32_t pc, int32_t counter) const {
  const Instruction& at = code[static_cast<std::size_t>(pc)];
  int64_t need = to_end[static_cast<std::size_t>(pc)];
  if (at.loop < 0) return need;
  const Instruction& loop = code[static_cast<std::size_t>(at.loop)];
  const int64_t left = int64_t{loop.low} - counter - (at.in_round ? 1 : 0);
  if (left > 0)
    need += left *
            (to_end[static_cast<std::size_t>(loop.a)] - to_end[static_cast<std::size_t>(loop.b)]);
  return std::min(need, kNever);
}

Builder::Builder() { add({Instruction::Op::kReturn}); }

int32_t Builder::add(const Instruction& instruction) {
  if (program_.code.size() >= kMaxInstructions) throw SchemaError("", "the schema is too large");
  program_.code.push_back(instruction);
  return size() - 1;
}

int32_t Builder::value() {
  program_.entries.push_back(kReturn);
  return static_cast<int32_t>(program_.entries.size()) - 1;
}

int32_t Builder::bytes(const ByteSet& set, int32_t next) {
  const auto [found, fresh] = sets_.try_emplace(set, static_cast<int32_t>(program_.sets.size()));
  if (fresh) program_.sets.push_back(set);
  return add({Instruction::Op::kBytes, next, 0, found->second});
}

int32_t Builder::range(int first, int last, int32_t next) {
  return bytes(set_of(first, last), next);
}

int32_t Builder::byte(char c, int32_t next) {
  const int value = static_cast<unsigned char>(c);
  return range(value, value, next);
}

int32_t Builder::literal(std::string_view text, int32_t next) {
  for (std::size_t i = text.size(); i-- > 0;) next = byte(text[i], next);
  return next;
}

int32_t Builder::split(int32_t a, int32_t b) { return add({Instruction::Op::kSplit, a, b}); }

void Builder::redirect(int32_t split, int32_t a, int32_t b) {
  edit(split).a = a;
  edit(split).b = b;
}

int32_t Builder::count(int32_t loop) {
  const Instruction& of = program_.code[static_cast<std::size_t>(loop)];
  return add({Instruction::Op::kCount, loop, 0, 0, 0, of.high == kMany ? of.low : of.high});
}

int32_t Builder::any_of(const std::vector<int32_t>& places) {
  int32_t all = places.back();
  for (std::size_t i = places.size() - 1; i-- > 0;) all = split(places[i], all);
  return all;
}

int32_t Builder::call(int32_t value, int32_t next) {
  return add({Instruction::Op::kCall, value, next});
}

void Builder::mark(int32_t first, int32_t loop, bool in_round) {
  for (int32_t pc = first; pc < size(); ++pc) {
    edit(pc).loop = loop;
    edit(pc).in_round = in_round;
  }
}

int32_t Builder::space(int32_t next) {
  int32_t indent = next;
  for (int i = 0; i < kMaxIndent; ++i) indent = split(next, byte(' ', indent));
  return any_of({next, byte(' ', next), byte('\n', indent)});
}

int32_t Builder::string_character(int32_t next) {
  ByteSet plain = set_of(0x20, 0x7E);
  plain.reset('"');
  plain.reset('\\');
  ByteSet escapes;
  for (const char c : std::string_view("\"\\/bfnrt")) escapes.set(static_cast<std::size_t>(c));
  ByteSet hex = set_of('0', '9') | set_of('a', 'f') | set_of('A', 'F');
  ByteSet no_d = hex;  // \uD800..\uDFFF are no characters
  no_d.reset('d');
  no_d.reset('D');
  ByteSet d;
  d.set('d');
  d.set('D');
  const int32_t one = bytes(hex, next), two = bytes(hex, one);
  const int32_t unicode =
      byte('u', split(bytes(no_d, bytes(hex, two)), bytes(d, range('0', '7', two))));
  // UTF-8, table 3-7 of the Unicode standard.
  const int32_t t1 = range(0x80, 0xBF, next), t2 = range(0x80, 0xBF, t1),
                t3 = range(0x80, 0xBF, t2);
  return any_of({bytes(plain, next), byte('\\', split(bytes(escapes, next), unicode)),
                 range(0xC2, 0xDF, t1), range(0xE0, 0xE0, range(0xA0, 0xBF, t1)),
                 bytes(set_of(0xE1, 0xEC) | set_of(0xEE, 0xEF), t2),
                 range(0xED, 0xED, range(0x80, 0x9F, t1)), range(0xF0, 0xF0, range(0x90, 0xBF, t2)),
                 range(0xF1, 0xF3, t3), range(0xF4, 0xF4, range(0x80, 0x8F, t2))});
}

int32_t Builder::string(int32_t low, int32_t high, int32_t next) {
  const int32_t at = loop(
      low, high, [&](int32_t count) { return string_character(count); }, byte('"', next));
  const int32_t first = size();
  const int32_t entry = byte('"', at);
  mark(first, at, false);
  return entry;
}

// low..high of equally many digits, digit by digit; fewer digits are ranges of their own.
int32_t Builder::naturals(int64_t low, int64_t high, int32_t next) {
  const std::string a = std::to_string(low), b = std::to_string(high);
  if (a.size() < b.size()) {
    const int64_t nines = std::stoll(std::string(a.size(), '9'));
    return split(naturals(low, nines, next), naturals(nines + 1, high, next));
  }
  std::size_t same = 0;
  while (same < a.size() && a[same] == b[same]) ++same;
  if (same == a.size()) return literal(a, next);
  const auto digits = [&](std::size_t n) {
    int32_t place = next;
    for (std::size_t i = 0; i < n; ++i) place = range('0', '9', place);
    return place;
  };
  // At the first digit that differs: strictly between, or equal to one bound and on.
  const std::size_t rest = a.size() - same - 1;
  std::vector<int32_t> ways;
  if (a[same] + 1 <= b[same] - 1) ways.push_back(range(a[same] + 1, b[same] - 1, digits(rest)));
  int32_t above = next, below = next;  // behind the bound's own digit
  for (std::size_t i = a.size(); i-- > same + 1;) {
    const std::size_t left = a.size() - i - 1;
    above = a[i] < '9' ? split(byte(a[i], above), range(a[i] + 1, '9', digits(left)))
                       : byte(a[i], above);
    below = b[i] > '0' ? split(byte(b[i], below), range('0', b[i] - 1, digits(left)))
                       : byte(b[i], below);
  }
  ways.push_back(byte(a[same], above));
  ways.push_back(byte(b[same], below));
  return literal(std::string_view(a).substr(0, same), any_of(ways));
}

int32_t Builder::integers(int64_t low, int64_t high, int32_t next) {
  std::vector<int32_t> ways;
  if (high >= 0) ways.push_back(naturals(std::max<int64_t>(low, 0), high, next));
  if (low < 0) ways.push_back(byte('-', naturals(std::max<int64_t>(-high, 1), -low, next)));
  return any_of(ways);
}

// Least costs by relaxation: values may call themselves.
void Builder::compute_costs() {
  Program& p = program_;
  p.costs.assign(p.entries.size(), kNever);
  p.to_end.assign(p.code.size(), kNever);
  const auto end = [&](int32_t pc) { return p.to_end[static_cast<std::size_t>(pc)]; };
  for (bool changed = true; changed;) {
    changed = false;
    const auto lower = [&](int64_t& cost, int64_t to) {
      to = std::min(to, kNever);
      if (to >= cost) return;
      cost = to;
      changed = true;
    };
    // Code is built backwards: what follows stands before.
    for (int32_t pc = 0; pc < size(); ++pc) {
      const Instruction& at = p.code[static_cast<std::size_t>(pc)];
      int64_t cost = 0;
      switch (at.op) {
        case Instruction::Op::kBytes:
          cost = 1 + end(at.a);
          break;
        case Instruction::Op::kSplit:
          cost = std::min(end(at.a), end(at.b));
          break;
        case Instruction::Op::kCall:
          cost = p.costs[static_cast<std::size_t>(at.a)] + end(at.b);
          break;
        case Instruction::Op::kCount:
          cost = end(at.a);
          break;
        case Instruction::Op::kLoop:
          cost = end(at.b);
          break;
        case Instruction::Op::kReturn:
        case Instruction::Op::kAccept:
          break;
      }
      lower(p.to_end[static_cast<std::size_t>(pc)], cost);
    }
    for (std::size_t v = 0; v < p.entries.size(); ++v) lower(p.costs[v], p.need(p.entries[v], 0));
  }
}

Program Builder::finish(int32_t root) {
  const int32_t accept = add({Instruction::Op::kAccept});
  program_.start = call(root, accept);
  compute_costs();
  return std::move(program_);
}

}  // namespace crumb::json

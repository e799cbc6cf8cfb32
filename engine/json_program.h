// Grammars of JSON texts as programs over bytes; for json_*.cpp only.
//
// A program is a nondeterministic machine with calls: a thread stands at an instruction with a
// counter (of a string's characters or an array's items) and a chain of frames to return to. Code
// is built backwards: every function takes where to go on and returns where to begin.
#pragma once
#include <bitset>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace crumb::json {

using ByteSet = std::bitset<256>;
inline constexpr int32_t kMany = INT32_MAX;          // a bound that is none
inline constexpr int64_t kNever = int64_t{1} << 40;  // bytes to an end that is not reached

struct Instruction {
  enum class Op : uint8_t { kBytes, kSplit, kCall, kReturn, kCount, kLoop, kAccept };
  Op op = Op::kReturn;
  int32_t a = 0, b = 0;       // kBytes, kCount: a next; kSplit: either; kCall: value a, then b;
                              // kLoop: body a, exit b
  int32_t set = 0;            // kBytes: of Program::sets
  int32_t low = 0, high = 0;  // kLoop: rounds; kCount: high is where the counter stays
  // The loop ahead of this place in its value, or -1; whether a round of it is already under way.
  int32_t loop = -1;
  bool in_round = false;
};

struct Program {
  std::vector<Instruction> code;
  std::vector<ByteSet> sets;
  std::vector<int32_t> entries;  // of each value
  std::vector<int64_t> costs;    // least bytes of each value
  std::vector<int64_t> to_end;   // of each instruction: least bytes to its value's end, loops done
  int32_t start = 0;             // calls the root, then accepts

  // Least bytes from here to the end of the value.
  int64_t need(int32_t pc, int32_t counter) const;
};

class Builder {
 public:
  Builder();
  int32_t value();  // a new value, to be defined later
  void define(int32_t value, int32_t entry) {
    program_.entries[static_cast<std::size_t>(value)] = entry;
  }

  static constexpr int32_t kReturn = 0;  // where every value ends
  int32_t bytes(const ByteSet& set, int32_t next);
  int32_t byte(char c, int32_t next);
  int32_t range(int first, int last, int32_t next);
  int32_t literal(std::string_view text, int32_t next);
  int32_t split(int32_t a, int32_t b);
  // Gives a split that was made before its ways both of them.
  void redirect(int32_t split, int32_t a, int32_t b);
  int32_t any_of(const std::vector<int32_t>& places);
  int32_t call(int32_t value, int32_t next);
  int32_t optional(int32_t place, int32_t next) { return split(next, place); }
  // low..high rounds of body, then exit: body(next) builds a round that goes on at `next`.
  template <class Body>
  int32_t loop(int32_t low, int32_t high, Body body, int32_t exit) {
    const int32_t at = add({Instruction::Op::kLoop, 0, exit, 0, low, high});
    const auto first = static_cast<int32_t>(program_.code.size());
    const int32_t entry = body(count(at));
    edit(at).a = entry;
    mark(first, at, true);
    edit(at).loop = at;
    return at;
  }
  // What ends a round of a loop, for one that is built outside of it.
  int32_t count(int32_t loop);
  // The instructions from `first` on have the loop `loop` ahead of them.
  void mark(int32_t first, int32_t loop, bool in_round);
  int32_t size() const { return static_cast<int32_t>(program_.code.size()); }

  // White space where JSON allows it, and no more than a reader wants: nothing, a space, or a line
  // feed and up to 20 spaces.
  int32_t space(int32_t next);
  int32_t string_character(int32_t next);
  int32_t string(int32_t low, int32_t high, int32_t next);
  // Whole numbers low..high, at most 15 digits.
  int32_t integers(int64_t low, int64_t high, int32_t next);

  // What it takes to build is bounded over the whole program; false if this much is too much.
  bool spend(int64_t work) { return (work_left_ -= work) >= 0; }

  // Computes costs. Returns the finished program; `root` is called once.
  Program finish(int32_t root);

 private:
  int32_t add(const Instruction& instruction);
  Instruction& edit(int32_t pc) { return program_.code[static_cast<std::size_t>(pc)]; }
  int32_t naturals(int64_t low, int64_t high, int32_t next);
  void compute_costs();

  int64_t work_left_ = 4'000'000;
  Program program_;
  std::unordered_map<ByteSet, int32_t> sets_;  // indices of Program::sets
};

}  // namespace crumb::json

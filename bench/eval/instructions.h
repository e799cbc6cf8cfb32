// Instructions that a program can check in an answer, with their arguments: IFEval's 25 kinds
// (Zhou et al., arXiv 2311.07911) and IFBench's (Pyatkin et al., arXiv 2507.02833).
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "bench/eval/record.h"
#include "bench/eval/unicode_text.h"

namespace crumb::eval {

// Arguments of one instruction by name. A null, false, 0, "" or [] in the data counts as absent, as
// in lm-eval.
class Arguments {
 public:
  using Value = std::variant<double, std::string, std::vector<std::string>>;
  void set(std::string name, Value value) { values_[std::move(name)] = std::move(value); }
  bool has(std::string_view name) const { return values_.contains(name); }
  // FormatError naming the argument if it is absent, of another type or no whole number >= 0.
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  Text text(std::string_view name) const;
  std::vector<Text> texts(std::string_view name) const;

 private:
  const Value& at(std::string_view name) const;
  std::map<std::string, Value, std::less<>> values_;
};

struct Instruction {
  std::string id;  // "keywords:existence"
  Arguments arguments;
};

// The fields "instruction_id_list" and "kwargs" of a record. FormatError if they do not fit
// together.
std::vector<Instruction> instructions_of(const Record& record);

// Is the instruction followed by an answer that is not blank? FormatError for wrong arguments.
struct Checker {
  std::string_view id;
  bool (*follows)(const Arguments& arguments, TextView answer) = nullptr;
};
std::span<const Checker> ifeval_checkers();
std::span<const Checker> ifbench_checkers();
// Null if the table has no such row.
const Checker* find_checker(std::span<const Checker> table, std::string_view id);

// Strict: the answer as it is. Loose: any of eight variants (first line dropped or not, last line
// dropped or not, asterisks removed or not). A blank text follows nothing.
bool follows_strictly(const Checker& checker, const Arguments& arguments, TextView answer);
bool follows_loosely(const Checker& checker, const Arguments& arguments, TextView answer);

// "less than" or "at least" (argument `relation`) `threshold`; FormatError for another word.
bool compare(int64_t count, const Arguments& arguments, std::string_view relation,
             int64_t threshold);

}  // namespace crumb::eval

#include "bench/eval/instructions.h"

#include <algorithm>
#include <cmath>

#include "models/errors.h"
#include "models/json.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::json;

[[noreturn]] void fail(std::string_view name, const std::string& expected) {
  throw FormatError("instruction argument " + std::string(name) + " (expected " + expected +
                    ", found none or something else)");
}

// What Python holds false.
bool is_nothing(const Json& value) {
  return value.is_null() || value == Json(false) || (value.is_number() && value == 0) ||
         (value.is_string() && value.get_ref<const std::string&>().empty()) ||
         (value.is_array() && value.empty());
}

Arguments arguments_of(const Json& object, const Record& record) {
  if (!object.is_object()) record.fail("kwargs", "objects", object.type_name());
  Arguments arguments;
  for (const auto& [name, value] : object.items()) {
    if (is_nothing(value)) continue;
    if (value.is_number()) {
      arguments.set(name, value.get<double>());
    } else if (value.is_string()) {
      arguments.set(name, value.get<std::string>());
    } else if (value.is_array() && std::all_of(value.begin(), value.end(),
                                               [](const Json& one) { return one.is_string(); })) {
      arguments.set(name, value.get<std::vector<std::string>>());
    } else {
      record.fail("kwargs", "numbers, strings and lists of strings", value.type_name());
    }
  }
  return arguments;
}

}  // namespace

const Arguments::Value& Arguments::at(std::string_view name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) fail(name, "a value");
  return found->second;
}

double Arguments::number(std::string_view name) const {
  const auto* value = std::get_if<double>(&at(name));
  if (value == nullptr || !std::isfinite(*value)) fail(name, "a number");
  return *value;
}

int64_t Arguments::integer(std::string_view name) const {
  const double value = number(name);
  if (value < 0 || value > 1e9 || value != std::floor(value)) fail(name, "a whole number");
  return static_cast<int64_t>(value);
}

Text Arguments::text(std::string_view name) const {
  const auto* value = std::get_if<std::string>(&at(name));
  if (value == nullptr) fail(name, "a text");
  return decode(*value);
}

std::vector<Text> Arguments::texts(std::string_view name) const {
  const auto* value = std::get_if<std::vector<std::string>>(&at(name));
  if (value == nullptr) fail(name, "a list of texts");
  std::vector<Text> result;
  for (const auto& one : *value) result.push_back(decode(one));
  return result;
}

std::vector<Instruction> instructions_of(const Record& record) {
  const auto ids = record.texts("instruction_id_list");
  const Json kwargs = Json::parse(record.json("kwargs"), nullptr, false);
  if (!kwargs.is_array() || kwargs.size() != ids.size())
    record.fail("kwargs", "an array of " + std::to_string(ids.size()) + " objects",
                kwargs.is_array() ? std::to_string(kwargs.size()) : kwargs.type_name());
  std::vector<Instruction> instructions;
  for (std::size_t i = 0; i < ids.size(); ++i)
    instructions.push_back({ids[i], arguments_of(kwargs[i], record)});
  return instructions;
}

const Checker* find_checker(std::span<const Checker> table, std::string_view id) {
  const auto at = std::find_if(table.begin(), table.end(),
                               [id](const Checker& checker) { return checker.id == id; });
  return at == table.end() ? nullptr : &*at;
}

bool follows_strictly(const Checker& checker, const Arguments& arguments, TextView answer) {
  return !strip(answer).empty() && checker.follows(arguments, answer);
}

bool follows_loosely(const Checker& checker, const Arguments& arguments, TextView answer) {
  const auto lines = split(answer, U"\n");
  const auto kept = [&](std::size_t first, std::size_t last) {
    if (first + last > lines.size()) return Text();
    const std::vector<TextView> some(lines.begin() + static_cast<std::ptrdiff_t>(first),
                                     lines.end() - static_cast<std::ptrdiff_t>(last));
    return Text(strip(join(some, U"\n")));
  };
  for (const Text& variant : {Text(answer), kept(1, 0), kept(0, 1), kept(1, 1)})
    if (follows_strictly(checker, arguments, variant) ||
        follows_strictly(checker, arguments, without(variant, U'*')))
      return true;
  return false;
}

bool compare(int64_t count, const Arguments& arguments, std::string_view relation,
             int64_t threshold) {
  const Text word = arguments.text(relation);
  if (word == U"less than") return count < threshold;
  if (word == U"at least") return count >= threshold;
  fail(relation, "'less than' or 'at least'");
}

}  // namespace crumb::eval

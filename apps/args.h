// Command-line options with strict values, over CLI11 (which only args.cpp sees).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/context.h"
#include "apps/settings.h"

namespace crumb::apps {

// The whole text as a number in [low, high]; anything else (blank, "12abc", "0x1", NaN, infinity,
// out of range) is Error(kUsage) naming `what`, the range and the text.
int64_t parse_integer(std::string_view text, int64_t low, int64_t high, std::string_view what);
double parse_real(std::string_view text, double low, double high, std::string_view what);

// The names of a table of {name, ..}, for Args::choice.
template <class Table>
std::vector<std::string> names(const Table& table) {
  std::vector<std::string> all;
  for (const auto& entry : table) all.emplace_back(entry.name);
  return all;
}

// "128,512" or a range "1-8" (steps of 1), "64-512+64", "1-64*2"; each value in [low, high], at
// most 1024 values.
std::vector<int64_t> parse_list(std::string_view text, int64_t low, int64_t high,
                                std::string_view what);

// The name of an allowed value, or Error(kUsage) listing them.
std::string parse_choice(const std::string& text, const std::vector<std::string>& allowed,
                         std::string_view what);

class Args {
 public:
  Args(const Context& context, std::string summary);
  ~Args();
  Args(const Args&) = delete;
  Args& operator=(const Args&) = delete;

  // `names` as CLI11 writes them: "-n,--predict". Values are stored while parse() runs.
  void flag(const std::string& names, bool& value, const std::string& help);
  void option(const std::string& names, const std::string& value_name, const std::string& help,
              std::function<void(const std::string&)> set);
  // The option may be given many times, each with one value.
  void repeated(const std::string& names, const std::string& value_name, const std::string& help,
                std::function<void(const std::string&)> set);
  void positional(const std::string& name, std::string& value, bool required,
                  const std::string& help);
  // At least one.
  void positionals(const std::string& name, std::vector<std::string>& values,
                   const std::string& help);

  void text(const std::string& names, std::string& value, const std::string& value_name,
            const std::string& help);
  // Target: int, int64_t, uint64_t, float, double or an optional of one.
  template <class Target>
  void integer(const std::string& names, Target& value, int64_t low, int64_t high,
               const std::string& help) {
    option(names, "N", help, [&value, low, high, names](const std::string& s) {
      value = static_cast<typename Value<Target>::type>(parse_integer(s, low, high, names));
    });
  }
  template <class Target>
  void real(const std::string& names, Target& value, double low, double high,
            const std::string& help) {
    option(names, "X", help, [&value, low, high, names](const std::string& s) {
      value = static_cast<typename Value<Target>::type>(parse_real(s, low, high, names));
    });
  }
  void choice(const std::string& names, std::string& value, const std::vector<std::string>& allowed,
              const std::string& help);
  void example(const std::string& line);

  // Reads context.args, then context.settings for what they do not name. False if that was all that
  // was wanted: help, which was printed, or an entry in context.table. Throws Error(kUsage).
  bool parse();

 private:
  template <class T>
  struct Value {
    using type = T;
  };
  template <class T>
  struct Value<std::optional<T>> {
    using type = T;
  };
  void set_the_rest();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb::apps

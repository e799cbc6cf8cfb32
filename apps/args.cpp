#include "apps/args.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "apps/output.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxListValues = 1024;

// llama.cpp's spellings with one dash and several letters, which CLI11 cannot declare.
struct LongShort {
  std::string_view from, to;
};
constexpr LongShort kLongShorts[] = {{"-sys", "--system"},
                                     {"-pg", "--prompt-gen"},
                                     {"-np", "--parallel"},
                                     {"-jf", "--json-schema-file"}};

[[noreturn]] void refuse(std::string_view what, const std::string& expected,
                         std::string_view found) {
  throw Error(ExitCode::kUsage,
              fmt::format("invalid value ({}: expected {}, found '{}')", what, expected, found));
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

void append_range(const std::string& part, int64_t low, int64_t high, std::string_view what,
                  std::vector<int64_t>& values) {
  const std::size_t dash = part.find('-', 1);
  if (dash == std::string::npos) {
    values.push_back(parse_integer(part, low, high, what));
    return;
  }
  const std::size_t step_at = part.find_first_of("+*", dash + 1);
  const bool times = step_at != std::string::npos && part[step_at] == '*';
  const int64_t first = parse_integer(part.substr(0, dash), low, high, what);
  const int64_t last = parse_integer(part.substr(dash + 1, step_at - dash - 1), low, high, what);
  const int64_t step = step_at == std::string::npos
                           ? 1
                           : parse_integer(part.substr(step_at + 1), times ? 2 : 1, high, what);
  if (times && first == 0) refuse(what, "a range with * to start above 0", part);
  for (int64_t v = first; v <= last; v = times ? v * step : v + step) {
    values.push_back(v);
    if (static_cast<int64_t>(values.size()) > kMaxListValues)
      refuse(what, "at most 1024 values", part);
    if (v > high / (times ? step : 1)) break;
  }
}

}  // namespace

int64_t parse_integer(std::string_view text, int64_t low, int64_t high, std::string_view what) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < low ||
      value > high)
    refuse(what, fmt::format("a whole number from {} to {}", low, high), text);
  return value;
}

double parse_real(std::string_view text, double low, double high, std::string_view what) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() ||
      !std::isfinite(value) || value < low || value > high)
    refuse(what, fmt::format("a number from {} to {}", low, high), text);
  return value;
}

std::vector<int64_t> parse_list(std::string_view text, int64_t low, int64_t high,
                                std::string_view what) {
  std::vector<int64_t> values;
  for (const auto& part : split(text, ',')) append_range(part, low, high, what, values);
  if (values.empty()) refuse(what, "at least one value", text);
  return values;
}

std::string parse_choice(const std::string& text, const std::vector<std::string>& allowed,
                         std::string_view what) {
  for (const auto& name : allowed)
    if (name == text) return text;
  refuse(what, fmt::format("one of {}", fmt::join(allowed, ", ")), text);
}

struct Args::State {
  CLI::App app;
  std::string examples;
};

Args::Args(std::string program, std::string summary) : state_(std::make_unique<State>()) {
  state_->app.name(std::move(program));
  state_->app.description(std::move(summary));
}

Args::~Args() = default;

void Args::flag(const std::string& names, bool& value, const std::string& help) {
  // A callback with a count, since CLI11's own flags also read "--name=false".
  state_->app
      .add_flag_callback(
          names, [&value] { value = true; }, help)
      ->disable_flag_override();
}

void Args::option(const std::string& names, const std::string& value_name, const std::string& help,
                  std::function<void(const std::string&)> set) {
  state_->app.add_option_function<std::string>(names, set, help)->type_name(value_name);
}

void Args::repeated(const std::string& names, const std::string& value_name,
                    const std::string& help, std::function<void(const std::string&)> set) {
  const auto each = [set](const std::vector<std::string>& values) {
    for (const auto& value : values) set(value);
  };
  state_->app.add_option_function<std::vector<std::string>>(names, each, help)
      ->type_name(value_name)
      ->allow_extra_args(false);
}

void Args::positional(const std::string& name, std::string& value, bool required,
                      const std::string& help) {
  const auto set = [&value](const std::string& s) { value = s; };
  state_->app.add_option_function<std::string>(name, set, help)->type_name("")->required(required);
}

void Args::positionals(const std::string& name, std::vector<std::string>& values,
                       const std::string& help) {
  state_->app.add_option(name, values, help)->type_name("")->required(true)->expected(-1);
}

void Args::text(const std::string& names, std::string& value, const std::string& value_name,
                const std::string& help) {
  option(names, value_name, help, [&value](const std::string& s) { value = s; });
}

void Args::choice(const std::string& names, std::string& value,
                  const std::vector<std::string>& allowed, const std::string& help) {
  option(
      names, fmt::format("{}", fmt::join(allowed, "|")), help,
      [&value, allowed, names](const std::string& s) { value = parse_choice(s, allowed, names); });
}

void Args::example(const std::string& line) { state_->examples += "  " + line + "\n"; }

bool Args::parse(const std::vector<std::string>& args) {
  if (!state_->examples.empty()) state_->app.footer("Examples:\n" + state_->examples);
  std::vector<std::string> reversed;  // CLI11 takes arguments from the back
  bool options = true;
  for (const auto& arg : args) {
    options = options && arg != "--";
    std::string_view mapped = arg;
    if (options)
      for (const auto& pair : kLongShorts)
        if (arg == pair.from) mapped = pair.to;
    reversed.insert(reversed.begin(), std::string(mapped));
  }
  try {
    state_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    write_stdout(state_->app.help());
    return false;
  } catch (const CLI::ParseError& e) {
    throw Error(ExitCode::kUsage, e.what(), state_->app.get_name() + " --help lists the options");
  }
  return true;
}

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

}  // namespace crumb::apps

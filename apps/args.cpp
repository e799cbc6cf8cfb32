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
  struct Entry {
    CLI::Option* given;  // on the command line, if its count is not 0
    std::function<void(const std::string&)> set;
  };
  explicit State(const Context& of) : context(of) {}

  void add(CLI::Option* given, const std::string& names, Option option,
           std::function<void(const std::string&)> set) {
    option.names = split(names, ',');
    option.help = given->get_description();
    for (const auto& pair : kLongShorts)
      if (pair.to == "--" + option.long_name()) option.names.emplace_back(pair.from);
    command.options.push_back(std::move(option));
    entries.push_back({given, std::move(set)});
  }

  const Context& context;
  CLI::App app;
  Command command;
  std::vector<Entry> entries;  // one for each of command.options
};

Args::Args(const Context& context, std::string summary) : state_(std::make_unique<State>(context)) {
  state_->command = {context.program, summary, {}, {}};
  state_->app.name(context.program);
  state_->app.description(std::move(summary));
  auto* help = state_->app.get_help_ptr();
  state_->add(help, "-h,--help", {.flag = true}, [](const std::string&) {});
}

Args::~Args() = default;

void Args::flag(const std::string& names, bool& value, const std::string& help) {
  // A callback with a count, since CLI11's own flags also read "--name=false".
  auto* given = state_->app.add_flag_callback(
      names, [&value] { value = true; }, help);
  given->disable_flag_override();
  state_->add(given, names, {.flag = true},
              [&value](const std::string& s) { value = value || s == "true"; });
}

void Args::option(const std::string& names, const std::string& value_name, const std::string& help,
                  std::function<void(const std::string&)> set) {
  auto* given = state_->app.add_option_function<std::string>(names, set, help);
  given->type_name(value_name);
  state_->add(given, names, {.value_name = value_name}, std::move(set));
}

void Args::repeated(const std::string& names, const std::string& value_name,
                    const std::string& help, std::function<void(const std::string&)> set) {
  const auto each = [set](const std::vector<std::string>& values) {
    for (const auto& value : values) set(value);
  };
  auto* given = state_->app.add_option_function<std::vector<std::string>>(names, each, help);
  given->type_name(value_name)->allow_extra_args(false);
  state_->add(given, names, {.value_name = value_name, .repeated = true}, std::move(set));
}

void Args::positional(const std::string& name, std::string& value, bool required,
                      const std::string& help) {
  const auto set = [&value](const std::string& s) { value = s; };
  auto* given = state_->app.add_option_function<std::string>(name, set, help);
  given->type_name("")->required(required);
  state_->add(given, name, {.positional = true, .required = required}, set);
}

void Args::positionals(const std::string& name, std::vector<std::string>& values,
                       const std::string& help) {
  auto* given = state_->app.add_option(name, values, help);
  given->type_name("")->required(true)->expected(-1);
  state_->add(given, name, {.repeated = true, .positional = true, .required = true},
              [&values](const std::string& s) { values.push_back(s); });
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
  state_->command.options.back().choices = allowed;
}

void Args::example(const std::string& line) { state_->command.examples += "  " + line + "\n"; }

bool Args::parse() {
  if (state_->context.table != nullptr) {
    state_->context.table->push_back(state_->command);
    return false;
  }
  if (!state_->command.examples.empty())
    state_->app.footer("Examples:\n" + state_->command.examples);
  std::vector<std::string> reversed;  // CLI11 takes arguments from the back
  bool options = true;
  for (const auto& arg : state_->context.args) {
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
  set_the_rest();
  return true;
}

void Args::set_the_rest() {
  if (state_->context.settings == nullptr) return;
  const std::string verb = state_->command.verb();
  for (std::size_t i = 0; i < state_->entries.size(); ++i) {
    if (state_->entries[i].given->count() > 0) continue;
    const auto setting = state_->context.settings->find(verb, state_->command.options[i]);
    if (!setting) continue;
    try {
      for (const auto& value : setting->values) state_->entries[i].set(value);
    } catch (const Error& e) {
      throw Error(e.code(), setting->origin + ": " + e.what(), e.hint());
    }
  }
}

}  // namespace crumb::apps

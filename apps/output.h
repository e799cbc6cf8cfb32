// Where results and remarks go: results to stdout with every failure noticed, the rest to stderr.
#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/json.h"
#include "models/text.h"

namespace crumb::apps {

using Json = nlohmann::ordered_json;

// The reader of stdout has gone; main ends without a word and with a code that is not 0.
struct BrokenPipe {};

// Descriptors 0, 1 and 2 become open (on /dev/null, in the direction that fails) if the caller
// closed them: otherwise the next file opened would take the place of stdout. Ignores SIGPIPE.
void secure_standard_streams();

// Unbuffered; throws IoError naming the system's reason, or BrokenPipe.
void write_stdout(std::string_view text);
void write_stderr(std::string_view text) noexcept;

template <class... T>
void put(fmt::format_string<T...> format, T&&... values) {
  write_stdout(fmt::format(format, std::forward<T>(values)...));
}
template <class... T>
void note(fmt::format_string<T...> format, T&&... values) {
  write_stderr(fmt::format(format, std::forward<T>(values)...));
}

// Text of a model as it comes. On a terminal control characters (all but tab and line feed) become
// U+FFFD: an answer must not be able to move the cursor or rename the window.
void write_answer(std::string_view text);

// Names out of files, made fit for one line of a terminal: control bytes as \xHH.
std::string one_line(std::string_view text);

// JSON text with a final newline; bytes that are not UTF-8 become U+FFFD.
std::string to_text(const Json& json, int indent = 2);

std::string human_bytes(double bytes);                      // "71.3 MB", decimal units
std::string human_seconds(double s);                        // "0:41", "1:02:03"
std::string shape_text(const std::vector<int64_t>& shape);  // "[576, 1536]"

using models::read_text;

// Columns padded to their widest cell, as a Markdown table.
class Table {
 public:
  // A name that starts with '>' is aligned right.
  explicit Table(std::vector<std::string> names);
  void add(std::vector<std::string> cells);
  std::string text() const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace crumb::apps

#include "apps/message_reader.h"

#include <string>

namespace crumb::apps {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";
constexpr std::string_view kFirst = ">>> ", kNext = "... ";

// Whether the block's text ends here; takes the closing quotes away.
bool close_block(std::string& text) {
  std::size_t end = text.size();
  while (end > 0 && (text[end - 1] == ' ' || text[end - 1] == '\t')) --end;
  if (end < kQuotes.size() || text.compare(end - kQuotes.size(), kQuotes.size(), kQuotes) != 0)
    return false;
  text.erase(end - kQuotes.size());
  return true;
}

}  // namespace

Line read_message(const std::function<Line(std::string_view prompt)>& read_line) {
  Line message = read_line(kFirst);
  if (message.kind != Line::Kind::kText) return message;
  std::string& text = message.text;
  if (text.starts_with(kQuotes)) {
    text.erase(0, kQuotes.size());
    while (!close_block(text)) {
      const Line line = read_line(kNext);
      if (line.kind == Line::Kind::kEnd) break;
      if (line.kind != Line::Kind::kText) return {line.kind, text + "\n" + line.text};
      text += "\n" + line.text;
    }
    return message;
  }
  while (text.ends_with('\\')) {
    text.back() = '\n';
    const Line line = read_line(kNext);
    if (line.kind == Line::Kind::kEnd) break;
    if (line.kind != Line::Kind::kText) return {line.kind, text + line.text};
    text += line.text;
  }
  return message;
}

}  // namespace crumb::apps

// From lines to messages: blocks in triple quotes, and lines that go on after a trailing backslash.
#pragma once
#include <functional>
#include <string_view>

#include "apps/line_editor.h"

namespace crumb::apps {

// Returns a kText line with the whole message, or whatever ended the reading. An end of file inside
// a block ends the message there. Blocks: """ at the start of a line until """ at the end of one.
Line read_message(const std::function<Line(std::string_view prompt)>& read_line);

}  // namespace crumb::apps

// What a model writes, taken apart into what it says and what it calls (the form is that of
// JsonGrammar::tool_calls, which holds the model to it).
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::serve {

struct ToolCall {
  std::string id, name;
  std::string arguments;  // JSON text, as it was written
};

class ToolCallStream {
 public:
  struct Part {
    std::size_t call = 0;   // index in calls()
    bool first = false;     // its name is known with this part
    std::string arguments;  // what is new of them
  };
  struct Piece {
    std::string content;
    std::vector<Part> parts;
  };
  // What can be told with this much more of the text. White space around calls is nobody's.
  Piece push(std::string_view text);
  // The rest, at the end of the text.
  Piece finish();
  const std::vector<ToolCall>& calls() const { return calls_; }

 private:
  enum class State { kText, kHead, kArguments, kTail };
  void text(Piece& piece);
  void head(char c, Piece& piece);
  void arguments(char c, Piece& piece);
  bool structure(char c);

  State state_ = State::kText;
  std::string held_;  // text not yet told; then the call's beginning, then its end
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
  std::vector<ToolCall> calls_;
};

}  // namespace crumb::serve

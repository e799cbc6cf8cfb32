// Answers on a terminal: prose wrapped between words, code as it is and in its own colour.
#pragma once
#include <functional>
#include <string>
#include <string_view>

namespace crumb::apps {

// Columns a character takes: 0 combining, 2 wide (East Asian, emoji), else 1.
int columns_of(uint32_t code_point);

class AnswerPrinter {
 public:
  // `columns` 0: no wrapping. `code` and `reset` are written around the lines between ``` fences,
  // by `style`, which gets nothing else; `text` gets all the rest.
  struct Sink {
    std::function<void(std::string_view)> text, style;
    std::string_view code, reset;
  };
  AnswerPrinter(int columns, Sink sink) : columns_(columns), sink_(std::move(sink)) {}

  // Whole characters, cut anywhere else. A word is written when it has ended.
  void push(std::string_view piece);
  void finish();
  bool at_line_start() const { return at_start_; }

 private:
  void end_word();
  void end_line();
  void style(std::string_view sequence);
  void give_out();

  int columns_;
  Sink sink_;
  std::string out_, word_,
      line_head_;  // line_head_: its first characters but white space, at most 3
  int word_columns_ = 0, column_ = 0;
  bool code_ = false, at_start_ = true, styled_ = false;
};

}  // namespace crumb::apps

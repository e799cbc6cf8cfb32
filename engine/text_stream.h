// From the bytes of tokens to text that may be shown: whole characters, without a stop text.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/utf8.h"

namespace crumb {

class TextStream {
 public:
  // `stop`: texts that end the stream and are not part of it; none is empty.
  explicit TextStream(std::vector<std::string> stop = {});
  // Adds a token's bytes; returns what may be shown now. An unfinished character, and what may be
  // the start of a stop text, are held back. Nothing comes after a stop text.
  std::string push(std::string_view bytes);
  // The rest, at the end of the stream.
  std::string finish();
  bool stopped() const { return stopped_; }  // a stop text was completed

 private:
  std::string filter(const std::string& text);
  std::size_t held_suffix() const;

  std::vector<std::string> stop_;
  std::size_t longest_ = 0;
  tokenizer::Utf8Stream utf8_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace crumb

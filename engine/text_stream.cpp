#include "engine/text_stream.h"

#include <algorithm>
#include <utility>

namespace crumb {

TextStream::TextStream(std::vector<std::string> stop) : stop_(std::move(stop)) {
  for (const auto& s : stop_) longest_ = std::max(longest_, s.size());
  held_.reserve(longest_ + 64);
}

std::string TextStream::push(std::string_view bytes) {
  return stopped_ ? std::string() : filter(utf8_.push(bytes));
}

std::string TextStream::finish() {
  if (stopped_) return {};
  std::string text = filter(utf8_.finish());
  if (!stopped_) text += std::exchange(held_, {});
  return text;
}

std::string TextStream::filter(const std::string& text) {
  held_ += text;
  std::size_t at = std::string::npos;
  for (const auto& s : stop_) at = std::min(at, held_.find(s));
  if (at != std::string::npos) {
    stopped_ = true;
    held_.resize(at);
    return std::exchange(held_, {});
  }
  const std::size_t keep = held_suffix();
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

// Length of the longest end of held_ that begins a stop text.
std::size_t TextStream::held_suffix() const {
  for (std::size_t n = std::min(longest_, held_.size()); n > 0; --n)
    for (const auto& s : stop_)
      if (n < s.size() &&
          std::string_view(held_).substr(held_.size() - n) == std::string_view(s).substr(0, n))
        return n;
  return 0;
}

}  // namespace crumb

#include "apps/serve/tool_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "engine/json_grammar.h"
#include "models/json.h"

namespace crumb::serve {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string call_id() {
  std::random_device device;
  return fmt::format("call_{:08x}{:08x}{:08x}", device(), device(), device());
}

}  // namespace

ToolCallStream::Piece ToolCallStream::push(std::string_view given) {
  Piece piece;
  for (std::size_t at = 0; at < given.size();) {
    if (state_ == State::kText) {
      // All of it at once; what stands behind a mark comes back.
      held_ += given.substr(at);
      at = given.size();
      const std::size_t mark = held_.find(kToolCallBegin);
      if (mark == held_.npos) {
        text(piece);
        break;
      }
      const std::size_t behind = mark + std::string_view(kToolCallBegin).size();
      at -= held_.size() - behind;
      held_.resize(mark);
      held_.resize(held_.find_last_not_of(kSpace) + 1);  // npos + 1 is 0
      piece.content += std::exchange(held_, {});
      state_ = State::kHead;
      depth_ = 0;
      continue;
    }
    const char c = given[at++];
    if (state_ == State::kHead) {
      head(c, piece);
    } else if (state_ == State::kArguments) {
      arguments(c, piece);
    } else {
      held_ += c;
      if (!held_.ends_with(kToolCallEnd)) continue;
      held_.clear();
      state_ = State::kText;
    }
  }
  return piece;
}

// Tells what is neither white space at the end nor may become a mark.
void ToolCallStream::text(Piece& piece) {
  const std::string_view mark = kToolCallBegin;
  std::size_t told = held_.size() - std::min(held_.size(), mark.size() - 1);
  while (told < held_.size() && !mark.starts_with(std::string_view(held_).substr(told))) ++told;
  told = std::string_view(held_).substr(0, told).find_last_not_of(kSpace) + 1;
  piece.content += held_.substr(0, told);
  held_.erase(0, told);
}

// Whether `c` is JSON's structure and not inside of a string.
bool ToolCallStream::structure(char c) {
  if (in_string_) {
    if (escaped_)
      escaped_ = false;
    else if (c == '\\')
      escaped_ = true;
    else if (c == '"')
      in_string_ = false;
    return false;
  }
  in_string_ = c == '"';
  if (c == '{' || c == '[') ++depth_;
  if (c == '}' || c == ']') --depth_;
  return !in_string_;
}

// The name comes first, and the arguments are the first value with an inside.
void ToolCallStream::head(char c, Piece& piece) {
  if (!structure(c) || c != '{' || depth_ != 2) {
    held_ += c;
    return;
  }
  const auto call = nlohmann::json::parse(held_ + "0}", nullptr, false);
  held_.clear();
  calls_.push_back({call_id(), call.is_object() ? call.value("name", "") : "", "{"});
  piece.parts.push_back({calls_.size() - 1, true, "{"});
  state_ = State::kArguments;
}

void ToolCallStream::arguments(char c, Piece& piece) {
  structure(c);
  if (piece.parts.empty() || piece.parts.back().call != calls_.size() - 1)
    piece.parts.push_back({calls_.size() - 1, false, ""});
  piece.parts.back().arguments += c;
  calls_.back().arguments += c;
  if (depth_ == 1) state_ = State::kTail;
}

ToolCallStream::Piece ToolCallStream::finish() {
  Piece piece;
  if (state_ != State::kText) return piece;
  if (!calls_.empty()) held_.resize(held_.find_last_not_of(kSpace) + 1);
  piece.content = std::exchange(held_, {});
  return piece;
}

}  // namespace crumb::serve

// Segments joined into one text, and the stretches of it between special tokens.
#pragma once
#include <cstddef>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

struct LiteralRuns {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> literal;  // begin, end; adjacent ones joined
};

// Throws std::length_error for 2 GiB or more.
inline LiteralRuns join_segments(std::span<const Segment> segments) {
  LiteralRuns joined;
  std::size_t total = 0;
  for (const Segment& segment : segments) total += segment.text.size();
  if (total > static_cast<std::size_t>(std::numeric_limits<int32_t>::max())) {
    throw std::length_error("tokenizer: text too long (encode: expected less than 2 GiB, found " +
                            std::to_string(total) + " bytes)");
  }
  joined.text.reserve(total);
  for (const Segment& segment : segments) {
    const std::size_t begin = joined.text.size();
    joined.text += segment.text;
    if (!segment.literal || segment.text.empty()) continue;
    if (!joined.literal.empty() && joined.literal.back().second == begin) {
      joined.literal.back().second = joined.text.size();
    } else {
      joined.literal.emplace_back(begin, joined.text.size());
    }
  }
  return joined;
}

// Calls plain(text) for what lies between two special tokens of the literal runs (it may be empty)
// and token(id) for them, in order. Linear.
template <typename Plain, typename Token>
void for_each_stretch(const LiteralRuns& runs, const SpecialTokens& specials, Plain plain,
                      Token token) {
  const std::string_view text = runs.text;
  std::size_t done = 0;
  for (const auto& [begin, end] : runs.literal) {
    for (std::size_t i = begin; i < end;) {
      const SpecialTokens::Match match = specials.longest_at(text.substr(0, end), i);
      if (match.id < 0) {
        ++i;
        continue;
      }
      plain(text.substr(done, i - done));
      token(match.id);
      i += match.length;
      done = i;
    }
  }
  plain(text.substr(done));
}

}  // namespace crumb::tokenizer

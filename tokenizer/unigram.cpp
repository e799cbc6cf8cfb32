#include "tokenizer/unigram.h"

#include <algorithm>
#include <limits>

namespace crumb::tokenizer {
namespace {

constexpr float kUnknownPenalty = 10;

// The best cut of the text up to a place: its last piece.
struct Best {
  float score = 0;
  int32_t id = -1;
  int64_t begin = -1;  // -1: none yet
};

}  // namespace

Unigram::Unigram(const TokenizerData& data) {
  float least = std::numeric_limits<float>::max(), most = std::numeric_limits<float>::lowest();
  for (std::size_t id = 0; id < data.tokens.size(); ++id) {
    if (data.types[id] != TokenType::kNormal && data.types[id] != TokenType::kUserDefined) continue;
    entries_.push_back({data.tokens[id], static_cast<int32_t>(id), data.scores[id]});
    if (data.types[id] != TokenType::kNormal) continue;
    least = std::min(least, data.scores[id]);
    most = std::max(most, data.scores[id]);
  }
  unknown_score_ = least - kUnknownPenalty;
  for (Entry& entry : entries_)
    if (data.types[static_cast<std::size_t>(entry.id)] == TokenType::kUserDefined)
      entry.score = static_cast<float>(static_cast<float>(entry.text.size()) * most - 0.1);
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.text < b.text; });
  const Range all{0, static_cast<uint32_t>(entries_.size())};
  for (int byte = 0; byte < 256; ++byte)
    by_first_[static_cast<std::size_t>(byte)] = narrowed(all, 0, static_cast<char>(byte));
}

Unigram::Range Unigram::narrowed(Range range, std::size_t depth, char byte) const {
  const auto at = [&](const Entry& entry) { return static_cast<uint8_t>(entry.text[depth]); };
  const auto wanted = static_cast<uint8_t>(byte);
  const auto begin = std::partition_point(
      entries_.begin() + range.begin, entries_.begin() + range.end,
      [&](const Entry& entry) { return entry.text.size() <= depth || at(entry) < wanted; });
  const auto end = std::partition_point(begin, entries_.begin() + range.end,
                                        [&](const Entry& entry) { return at(entry) == wanted; });
  return {static_cast<uint32_t>(begin - entries_.begin()),
          static_cast<uint32_t>(end - entries_.begin())};
}

std::vector<Piece> Unigram::cut(std::string_view text) const {
  std::vector<Best> best(text.size() + 1);
  best[0].begin = 0;
  const auto offer = [&](std::size_t begin, std::size_t end, int32_t id, float score) {
    Best& place = best[end];
    const float sum = score + best[begin].score;
    if (place.begin < 0 || sum > place.score) place = {sum, id, static_cast<int64_t>(begin)};
  };
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t next = std::min(text.size(), begin + character_bytes(text[begin]));
    bool covered = false;
    Range range = by_first_[static_cast<uint8_t>(text[begin])];
    for (std::size_t end = begin + 1; range.begin < range.end; ++end) {
      const Entry& shortest = entries_[range.begin];
      if (shortest.text.size() == end - begin) {
        offer(begin, end, shortest.id, shortest.score);
        covered = covered || end == next;
      }
      if (end == text.size()) break;
      range = narrowed(range, end - begin, text[end]);
    }
    if (!covered) offer(begin, next, -1, unknown_score_);
    begin = next;
  }
  std::vector<Piece> pieces;
  for (std::size_t end = text.size(); end > 0;) {
    const auto begin = static_cast<std::size_t>(best[end].begin);
    pieces.push_back({best[end].id, text.substr(begin, end - begin)});
    end = begin;
  }
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

}  // namespace crumb::tokenizer

#include "tokenizer/bpe_check.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "tokenizer/reject.h"

namespace crumb::tokenizer {
namespace {

__extension__ using Wide = unsigned __int128;

}  // namespace

ShortTexts::ShortTexts(const TokenizerData& data)
    : data_(data), heads_(data.tokens.size()), sizes_(data.tokens.size()) {
  for (std::size_t id = 0; id < heads_.size(); ++id) {
    heads_[id] = text_head(data.tokens[id]);
    sizes_[id] = static_cast<uint32_t>(std::min<std::size_t>(data.tokens[id].size(), UINT32_MAX));
  }
}

uint64_t ShortTexts::hash(int32_t id) const {
  return sizes_[id] <= kBytes ? hash_head(heads_[id], sizes_[id]) : hash_text(data_.tokens[id]);
}

bool ShortTexts::same(int32_t a, int32_t b) const {
  return sizes_[a] == sizes_[b] && heads_[a] == heads_[b] &&
         (sizes_[a] <= kBytes || data_.tokens[a] == data_.tokens[b]);
}

bool ShortTexts::joins(int32_t joined, int32_t head, int32_t tail) const {
  if (sizes_[joined] <= kBytes) {
    if (sizes_[joined] != uint64_t{sizes_[head]} + sizes_[tail]) return false;
    const auto number = [&](int32_t id) {
      return static_cast<Wide>(heads_[id].high) << 64 | heads_[id].low;
    };
    const Wide behind = sizes_[head] < kBytes ? number(tail) << 8 * sizes_[head] : 0;
    return number(joined) == (number(head) | behind);
  }
  const std::string_view text = data_.tokens[joined];
  const std::string& first = data_.tokens[head];
  const std::string& second = data_.tokens[tail];
  return text.size() == first.size() + second.size() && text.starts_with(first) &&
         text.ends_with(second);
}

namespace {

void check_merge(const TokenizerData& data, const ShortTexts& texts, std::size_t rank) {
  const auto& merge = data.merges[rank];
  // Only for a message: made for every merge it took longer than all checks together.
  const auto where = [&] { return "merges[" + std::to_string(rank) + "]"; };
  for (const int32_t id : merge) {
    if (id < 0 || id >= std::ssize(data.tokens)) {
      reject("merge with an id out of range", where(),
             "0 to " + std::to_string(data.tokens.size() - 1), std::to_string(id));
    }
  }
  const auto& [left, right, result] = merge;
  if (!texts.joins(result, left, right)) {
    reject("merge that does not join its parts", where(),
           "token " + std::to_string(left) + " followed by token " + std::to_string(right),
           "token " + std::to_string(result));
  }
  if (data.types[result] == TokenType::kControl) {
    reject("merge that makes a control token", where(), "a normal token",
           "control token " + std::to_string(result));
  }
}

}  // namespace

FlatIndex index_tokens(const TokenizerData& data, const ShortTexts& texts) {
  FlatIndex index(data.tokens.size());
  for (int32_t id = 0; id < std::ssize(data.tokens); ++id) {
    const int32_t holder =
        index.insert(texts.hash(id), id, [&](int32_t other) { return texts.same(id, other); });
    if (holder != id) {
      reject("duplicate token", "tokens[" + std::to_string(id) + "]", "each token once",
             "the text of token " + std::to_string(holder));
    }
  }
  return index;
}

void check_merges(const TokenizerData& data, const ShortTexts& texts) {
  if (std::ssize(data.merges) > INT32_MAX)
    reject("too many merges", "merges", "int32 ranks", "more");
  for (std::size_t rank = 0; rank < data.merges.size(); ++rank) check_merge(data, texts, rank);
}

}  // namespace crumb::tokenizer

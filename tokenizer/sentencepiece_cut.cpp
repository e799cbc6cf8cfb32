#include "tokenizer/sentencepiece_cut.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "tokenizer/merge_queue.h"

namespace crumb::tokenizer {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";

bool is_text(TokenType type) {
  return type == TokenType::kNormal || type == TokenType::kUserDefined ||
         type == TokenType::kUnused;
}

bool marked_at(std::string_view text, std::size_t at) {
  return text.substr(at).starts_with(kSpaceMark);
}

}  // namespace

PieceIndex::PieceIndex(const TokenizerData& data)
    : data_(&data), by_text_(data.tokens.size()), symbols_(data, TokenType::kUserDefined) {
  for (int32_t id = 0; id < std::ssize(data.tokens); ++id) {
    if (!is_text(data.types[static_cast<std::size_t>(id)])) continue;
    const std::string& text = data.tokens[static_cast<std::size_t>(id)];
    by_text_.insert(hash_text(text), id, [&](int32_t other) {
      return data.tokens[static_cast<std::size_t>(other)] == text;
    });
  }
}

int32_t PieceIndex::find(std::string_view text) const {
  return by_text_.find(hash_text(text), [&](int32_t other) {
    return data_->tokens[static_cast<std::size_t>(other)] == text;
  });
}

PieceIndex::Unit PieceIndex::unit_at(std::string_view text, std::size_t at) const {
  const SpecialTokens::Match symbol = symbols_.longest_at(text, at);
  if (symbol.id >= 0) return {symbol.length, symbol.id};
  return {std::min(character_bytes(text[at]), text.size() - at), -1};
}

// One word in the making.
struct MergeCut::Work {
  struct Symbol {
    uint32_t begin, bytes;
    int32_t previous, next;  // -1: none
    int32_t id;              // kCharacter: not yet asked for
    int32_t joined = -1;     // the piece that it and the next one are
    bool fixed = false;      // a user-defined symbol
  };
  static constexpr int32_t kCharacter = -2;

  std::string_view text(const Symbol& symbol) const {
    return word.substr(symbol.begin, symbol.bytes);
  }

  std::string_view word;
  std::vector<Symbol> symbols;
  MergeQueue due;  // rank << 32 | place of the left symbol
  // What an unused piece was last seen as.
  std::unordered_map<int32_t, std::pair<std::string_view, std::string_view>> halves;
};

MergeCut::MergeCut(const TokenizerData& data) : index_(data), ranks_(data.tokens.size()) {
  std::vector<std::size_t> order(ranks_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return data.scores[a] > data.scores[b]; });
  for (std::size_t i = 1; i < order.size(); ++i)
    ranks_[order[i]] =
        ranks_[order[i - 1]] + (data.scores[order[i]] < data.scores[order[i - 1]] ? 1 : 0);
  for (std::size_t id = 0; id < ranks_.size(); ++id) {
    if (!is_text(data.types[id])) continue;
    const std::string_view piece = data.tokens[id];
    longest_ = std::max(longest_, piece.size());
    for (std::size_t at = piece.find(kSpaceMark); at != piece.npos;
         at = piece.find(kSpaceMark, at + kSpaceMark.size())) {
      const std::size_t end = at + kSpaceMark.size();
      if (at > 0 && !piece.substr(0, at).ends_with(kSpaceMark)) starts_words_ = false;
      if (end < piece.size() && !marked_at(piece, end)) ends_words_ = false;
    }
    // Which halves an unused piece is taken apart into depends on the words before.
    if (data.types[id] == TokenType::kUnused && piece.size() > character_bytes(piece[0]))
      starts_words_ = ends_words_ = false;
  }
}

std::size_t MergeCut::word_end(std::string_view text, std::size_t begin) const {
  if (!starts_words_ && !ends_words_) return text.size();
  for (std::size_t at = text.find(kSpaceMark, begin); at != text.npos;
       at = text.find(kSpaceMark, at + kSpaceMark.size())) {
    const std::size_t end = at + kSpaceMark.size();
    if (starts_words_ && at > begin && !text.substr(begin, at - begin).ends_with(kSpaceMark))
      return at;
    if (ends_words_ && end < text.size() && !marked_at(text, end)) return end;
  }
  return text.size();
}

// Looks for what `left` and the symbol behind it are together, and notes that it is due.
void MergeCut::find_joined(Work& work, int32_t left) const {
  Work::Symbol& symbol = work.symbols[static_cast<std::size_t>(left)];
  symbol.joined = -1;
  if (symbol.next < 0 || symbol.fixed) return;
  const Work::Symbol& right = work.symbols[static_cast<std::size_t>(symbol.next)];
  if (right.fixed || symbol.bytes + right.bytes > longest_) return;
  symbol.joined = index_.find(work.word.substr(symbol.begin, symbol.bytes + right.bytes));
  if (symbol.joined < 0) return;
  if (index_.data().types[static_cast<std::size_t>(symbol.joined)] == TokenType::kUnused)
    work.halves[symbol.joined] = {work.text(symbol), work.text(right)};
}

void MergeCut::split(Work& work, std::string_view word) const {
  work.word = word;
  work.symbols.clear();
  for (std::size_t at = 0; at < word.size();) {
    const PieceIndex::Unit unit = index_.unit_at(word, at);
    const auto place = static_cast<int32_t>(work.symbols.size());
    work.symbols.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(unit.bytes), place - 1,
                            place + 1, unit.symbol < 0 ? Work::kCharacter : unit.symbol, -1,
                            unit.symbol >= 0});
    at += unit.bytes;
  }
  work.symbols.back().next = -1;
}

// An entry whose pair has changed meanwhile is passed over. If the pair that is there now has the
// same rank, then it has an entry that is the same, and the one serves for the other.
void MergeCut::merge(Work& work) const {
  const auto key = [&](int32_t left) {
    const int32_t joined = work.symbols[static_cast<std::size_t>(left)].joined;
    return static_cast<uint64_t>(ranks_[static_cast<std::size_t>(joined)]) << 32 |
           static_cast<uint32_t>(left);
  };
  work.due.clear();
  for (int32_t left = 0; left < std::ssize(work.symbols); ++left) {
    find_joined(work, left);
    if (work.symbols[static_cast<std::size_t>(left)].joined >= 0) work.due.add(key(left));
  }
  work.due.start();
  for (uint64_t entry = 0; work.due.pop(entry);) {
    const auto left = static_cast<int32_t>(entry & 0xFFFFFFFF);
    Work::Symbol& symbol = work.symbols[static_cast<std::size_t>(left)];
    if (symbol.joined < 0 || key(left) != entry) continue;
    Work::Symbol& right = work.symbols[static_cast<std::size_t>(symbol.next)];
    symbol.id = symbol.joined;
    symbol.bytes += right.bytes;
    symbol.next = right.next;
    right.joined = -1;
    if (symbol.next >= 0) work.symbols[static_cast<std::size_t>(symbol.next)].previous = left;
    for (const int32_t changed : {symbol.previous, left}) {
      if (changed < 0) continue;
      find_joined(work, changed);
      if (work.symbols[static_cast<std::size_t>(changed)].joined >= 0) work.due.push(key(changed));
    }
  }
}

void MergeCut::put_pieces(Work& work, std::vector<Piece>& out) const {
  std::vector<Piece> open;  // still to be looked at, the first at the end
  for (int32_t place = 0; place >= 0;) {
    const Work::Symbol& symbol = work.symbols[static_cast<std::size_t>(place)];
    place = symbol.next;
    const std::string_view text = work.text(symbol);
    const int32_t id = symbol.id == Work::kCharacter ? index_.find(text) : symbol.id;
    if (work.halves.empty()) {
      out.push_back({id, text});
      continue;
    }
    open.assign(1, {id, text});
    while (!open.empty()) {
      const Piece piece = open.back();
      open.pop_back();
      const auto halves = work.halves.find(piece.id);
      if (halves == work.halves.end()) {
        out.push_back(piece);
        continue;
      }
      for (const std::string_view half : {halves->second.second, halves->second.first})
        open.push_back({index_.find(half), half});
    }
  }
}

std::vector<Piece> MergeCut::cut(std::string_view text) const {
  std::vector<Piece> pieces;
  Work work;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = word_end(text, begin);
    split(work, text.substr(begin, end - begin));
    merge(work);
    put_pieces(work, pieces);
    begin = end;
  }
  return pieces;
}

std::vector<Piece> WordCut::cut(std::string_view text) const {
  std::vector<Piece> pieces;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t first = std::min(character_bytes(text[begin]), text.size() - begin);
    const std::size_t end = std::min(text.find(kSpaceMark, begin + first), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    pieces.push_back({index_.find(word), word});
    begin = end;
  }
  return pieces;
}

std::vector<Piece> CharacterCut::cut(std::string_view text) const {
  std::vector<Piece> pieces;
  for (std::size_t at = 0; at < text.size();) {
    const PieceIndex::Unit unit = index_.unit_at(text, at);
    const std::string_view character = text.substr(at, unit.bytes);
    pieces.push_back({unit.symbol >= 0 ? unit.symbol : index_.find(character), character});
    at += unit.bytes;
  }
  return pieces;
}

}  // namespace crumb::tokenizer

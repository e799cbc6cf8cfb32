#include "tokenizer/sentencepiece_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tokenizer/flat_index.h"
#include "tokenizer/reject.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer {
namespace {

constexpr std::size_t kMaxNested = 64;   // results array of the library's symbol matcher
constexpr uint8_t kMaxTrieMatches = 32;  // results array of its normalizer
constexpr std::string_view kHex = "0123456789ABCDEF";

std::string place(std::size_t id) { return "tokens[" + std::to_string(id) + "]"; }

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint found = code_point_at(text, i);
    if (found.value == kNoCodePoint) return false;
    i += static_cast<std::size_t>(found.length);
  }
  return true;
}

void check_piece(const std::string& piece, std::size_t id) {
  if (piece.empty() || piece.size() > kMaxPieceBytes) {
    reject("piece of unlawful length", place(id),
           "1 to " + std::to_string(kMaxPieceBytes) + " bytes", std::to_string(piece.size()));
  }
  if (piece.find('\0') != std::string::npos) {
    reject("piece with a NUL", place(id), "text without NUL", "one");
  }
  if (!is_utf8(piece)) reject("piece that is not UTF-8", place(id), "UTF-8", "other bytes");
}

bool is_byte_token(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text[5] == '>' &&
         kHex.find(text[3]) != kHex.npos && kHex.find(text[4]) != kHex.npos;
}

void check_byte_tokens(const TokenizerData& data) {
  std::array<bool, 256> seen{};
  std::size_t count = 0;
  for (std::size_t id = 0; id < data.tokens.size(); ++id) {
    if (data.types[id] != TokenType::kByte) continue;
    const std::string& text = data.tokens[id];
    if (!is_byte_token(text))
      reject("malformed byte token", place(id), "<0xHH> in capitals", "other text");
    seen[kHex.find(text[3]) * 16 + kHex.find(text[4])] = true;
    ++count;
  }
  if (count == 0) {
    for (std::size_t id = 0; id < data.tokens.size(); ++id)
      if (is_byte_token(data.tokens[id]) && data.types[id] != TokenType::kControl)
        reject("piece that is spelled like a byte token", place(id), "other text or type byte",
               data.tokens[id]);
  }
  if (count != 0 && (count != 256 || std::count(seen.begin(), seen.end(), true) != 256)) {
    reject("incomplete byte tokens", "tokens", "256 or none", std::to_string(count));
  }
}

void check_nesting(const TokenizerData& data) {
  const std::vector<std::string>& pieces = data.tokens;
  std::vector<std::string_view> symbols;
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    if (data.types[id] == TokenType::kUserDefined) symbols.push_back(pieces[id]);
  }
  std::sort(symbols.begin(), symbols.end());
  std::vector<std::string_view> prefixes;  // each begins the next
  for (const std::string_view symbol : symbols) {
    while (!prefixes.empty() && !symbol.starts_with(prefixes.back())) prefixes.pop_back();
    prefixes.push_back(symbol);
    if (prefixes.size() > kMaxNested) {
      reject("user-defined symbols nested too deeply", "tokens",
             "at most " + std::to_string(kMaxNested) + " that begin one another", "more");
    }
  }
}

// A unit of the double array, as Darts-clone packs it.
struct Unit {
  uint32_t bits;

  bool has_leaf() const { return (bits >> 8 & 1) != 0; }
  uint32_t value() const { return bits & 0x7FFFFFFF; }
  uint32_t label() const { return bits & 0x800000FF; }
  uint32_t offset() const { return bits >> 10 << ((bits & 1u << 9) >> 6); }
};

// Walks every path of the trie once. Nodes may be shared (the builder joins equal endings), so the
// largest number of matches below a node is kept with it.
class TrieWalk {
 public:
  TrieWalk(std::vector<Unit> units, std::string_view replacements)
      : units_(std::move(units)), replacements_(replacements), matches_(units_.size(), kNew) {}

  void run() {
    enter(0);
    while (!path_.empty()) {
      Step& step = path_.back();
      if (step.next == 256) {
        leave();
        continue;
      }
      const uint32_t byte = step.next++;
      const uint32_t child = step.base ^ byte;
      if (units_[child].label() != byte) continue;
      if (matches_[child] == kOpen) broken("no circle", "one");
      if (matches_[child] == kNew)
        enter(child);
      else
        step.most = std::max(step.most, matches_[child]);
    }
    if (matches_[0] > kMaxTrieMatches)
      broken("at most " + std::to_string(kMaxTrieMatches) + " matches on one path", "more");
  }

 private:
  struct Step {
    uint32_t node, base;
    uint32_t next = 1;  // the next byte to try; 0 ends a key
    uint8_t most = 0;   // matches below
  };
  static constexpr uint8_t kNew = 255, kOpen = 254;

  [[noreturn]] static void broken(const std::string& expected, const std::string& found) {
    reject("damaged normalizer trie", "charsmap", expected, found);
  }

  void enter(uint32_t node) {
    const Unit unit = units_[node];
    const uint32_t base = node ^ unit.offset();
    if ((base | 0xFF) >= units_.size()) broken("offsets inside the trie", "one outside");
    if (unit.has_leaf() && units_[base].value() >= replacements_.size())
      broken("replacements inside the table", "one outside");
    if (unit.has_leaf() && (replacements_[units_[base].value()] & 0xC0) == 0x80)
      broken("replacements that begin with a character", "one in the middle of one");
    matches_[node] = kOpen;
    path_.push_back({node, base});
  }

  void leave() {
    const Step step = path_.back();
    path_.pop_back();
    const int most = step.most + (units_[step.node].has_leaf() ? 1 : 0);
    matches_[step.node] = static_cast<uint8_t>(std::min(most, kMaxTrieMatches + 1));
    if (!path_.empty()) path_.back().most = std::max(path_.back().most, matches_[step.node]);
  }

  std::vector<Unit> units_;
  std::string_view replacements_;
  std::vector<uint8_t> matches_;  // [units]
  std::vector<Step> path_;
};

}  // namespace

void check_pieces(const TokenizerData& data) {
  const std::vector<std::string>& pieces = data.tokens;
  if (pieces.size() > kMaxPieces) {
    reject("vocabulary too large", "tokens", "at most " + std::to_string(kMaxPieces),
           std::to_string(pieces.size()));
  }
  if (data.scores.size() != pieces.size()) {
    reject("no scores", "scores", std::to_string(pieces.size()),
           std::to_string(data.scores.size()));
  }
  FlatIndex index(pieces.size());
  int unknown = 0;
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    const std::string& piece = pieces[id];
    check_piece(piece, id);
    if (!std::isfinite(data.scores[id])) {
      reject("score that is not finite", "scores[" + std::to_string(id) + "]", "a number",
             "NaN or infinity");
    }
    if (data.types[id] == TokenType::kUnknown) ++unknown;
    const auto own = static_cast<int32_t>(id);
    const int32_t holder = index.insert(hash_text(piece), own, [&](int32_t other) {
      return pieces[static_cast<std::size_t>(other)] == piece;
    });
    if (holder != own) {
      reject("duplicate piece", place(id), "each piece once",
             "the text of token " + std::to_string(holder));
    }
  }
  if (unknown > 1) reject("several unknown tokens", "types", "one", std::to_string(unknown));
  check_byte_tokens(data);
  check_nesting(data);
}

void check_charsmap(std::string_view charsmap) {
  if (charsmap.empty()) return;
  const auto broken = [](const std::string& expected, const std::string& found) {
    reject("damaged normalizer", "charsmap", expected, found);
  };
  if (charsmap.size() > kMaxCharsmapBytes)
    broken("at most 4 MiB", std::to_string(charsmap.size()) + " bytes");
  uint32_t trie_bytes = 0;
  if (charsmap.size() <= sizeof(trie_bytes)) broken("a size and a trie", "less");
  std::memcpy(&trie_bytes, charsmap.data(), sizeof(trie_bytes));
  const std::size_t rest = charsmap.size() - sizeof(trie_bytes);
  // Whole blocks of 256 units, as the builder makes them.
  if (trie_bytes == 0 || trie_bytes % 1024 != 0 || trie_bytes >= rest)
    broken("a trie of whole kilobytes and replacements after it",
           std::to_string(trie_bytes) + " of " + std::to_string(rest) + " bytes");
  std::vector<Unit> units(trie_bytes / sizeof(Unit));
  std::memcpy(units.data(), charsmap.data() + sizeof(trie_bytes), trie_bytes);
  const std::string_view replacements = charsmap.substr(sizeof(trie_bytes) + trie_bytes);
  if (replacements.back() != '\0') broken("replacements that end with NUL", "another end");
  if (!is_utf8(replacements)) broken("replacements in UTF-8", "other bytes");
  TrieWalk(std::move(units), replacements).run();
}

}  // namespace crumb::tokenizer

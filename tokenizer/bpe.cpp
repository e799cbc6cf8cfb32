#include "tokenizer/bpe.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "tokenizer/bpe_check.h"
#include "tokenizer/flat_index.h"
#include "tokenizer/literal_runs.h"
#include "tokenizer/merge_queue.h"
#include "tokenizer/nfc.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/reject.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer {
namespace {

constexpr int kAlphabetEnd = 256 + 68;  // one past its last code point

// The code point that stands for each byte.
constexpr std::array<uint16_t, 256> make_alphabet() {
  std::array<uint16_t, 256> alphabet{};
  uint16_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte < 0xAD) || byte > 0xAD;
    alphabet[byte] = itself ? static_cast<uint16_t>(byte) : next++;
  }
  return alphabet;
}
constexpr std::array<uint16_t, 256> kAlphabet = make_alphabet();

// The byte of each code point, -1 outside the alphabet.
constexpr std::array<int16_t, kAlphabetEnd> make_inverse() {
  std::array<int16_t, kAlphabetEnd> inverse{};
  inverse.fill(-1);
  for (int byte = 0; byte < 256; ++byte) inverse[kAlphabet[byte]] = static_cast<int16_t>(byte);
  return inverse;
}
constexpr std::array<int16_t, kAlphabetEnd> kInverse = make_inverse();

// Appends the bytes that `text` stands for; the text itself if it leaves the alphabet.
void append_from_alphabet(std::string& out, std::string_view text) {
  const std::size_t start = out.size();
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] > ' ' && text[i] < '\x7F') {  // what most of a vocabulary is made of
      out += text[i++];
      continue;
    }
    const CodePoint found = code_point_at(text, i);
    const int byte = found.value < kInverse.size() ? kInverse[found.value] : -1;
    if (byte < 0) {
      out.resize(start);
      out += text;
      return;
    }
    out += static_cast<char>(byte);
    i += found.length;
  }
}

bool is_special(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUserDefined;
}

using Merge = std::array<int32_t, 3>;  // left id, right id, result id

// (left, right) -> rank.
class MergeTable {
 public:
  // check_merges() has passed the data.
  explicit MergeTable(const TokenizerData& data) : merges_(data.merges), index_(merges_.size()) {
    for (std::size_t rank = 0; rank < merges_.size(); ++rank) {
      const Pair pair{merges_, merges_[rank][0], merges_[rank][1]};
      index_.insert(pair.hash(), static_cast<int32_t>(rank), pair);
    }
  }
  // -1 if the two do not merge.
  int32_t rank(int32_t left, int32_t right) const {
    const Pair pair{merges_, left, right};
    return index_.find(pair.hash(), pair);
  }
  const Merge& operator[](std::size_t rank) const { return merges_[rank]; }

 private:
  struct Pair {
    std::span<const Merge> merges;
    int32_t left, right;

    uint64_t hash() const {
      return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
    }
    bool operator()(int32_t rank) const {
      return merges[rank][0] == left && merges[rank][1] == right;
    }
  };

  std::span<const Merge> merges_;
  FlatIndex index_;
};

constexpr uint64_t kNotDue = std::numeric_limits<uint64_t>::max();

// A word in the making: a list of symbols, and the merges that may be due.
struct Scratch {
  struct Symbol {
    int32_t id;  // -1: merged into the symbol before it
    int32_t previous, next;
  };
  std::vector<Symbol> symbols;
  MergeQueue due;  // rank << 32 | place of the left symbol
  std::vector<int32_t> ids;
  int64_t dropped_bytes = 0;
};

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerData data);
  BpeTokenizer(const BpeTokenizer&) = delete;  // merges_ and specials_ look into data_

  std::vector<int32_t> encode(std::span<const Segment> text, EncodeReport* report) const override;
  std::string_view bytes(int32_t id) const override;
  const TokenizerData& data() const override { return data_; }

 private:
  void fill_bytes();
  void encode_plain(std::string_view text, Scratch& scratch) const;
  int32_t find_word(std::string_view word) const;
  void encode_word(std::string_view word, Scratch& scratch) const;
  uint64_t due_key(const Scratch& scratch, int32_t left) const;
  void merge_symbols(Scratch& scratch) const;

  const TokenizerData data_;
  const Pretokenizer& pretokenizer_;
  FlatIndex by_text_;  // of all tokens
  MergeTable merges_;
  SpecialTokens specials_;
  std::array<int32_t, 256> byte_ids_{};  // token of each byte, -1 if the vocabulary lacks it
  std::string blob_;                     // bytes of all tokens
  std::vector<uint32_t> offsets_;        // [V + 1], where each token's bytes start in blob_
};

const Pretokenizer& known_pretokenizer(const std::string& name) {
  const Pretokenizer* found = find_pretokenizer(name);
  if (found == nullptr) {
    reject("unknown pre-tokenizer", "pre", "one of " + pretokenizer_names(), "'" + name + "'");
  }
  return *found;
}

// Checks tokens and merges; the tokens by their texts.
FlatIndex checked_index(const TokenizerData& data) {
  const ShortTexts texts(data);
  FlatIndex index = index_tokens(data, texts);
  check_merges(data, texts);
  return index;
}

BpeTokenizer::BpeTokenizer(TokenizerData data)
    : data_(std::move(data)),
      pretokenizer_(known_pretokenizer(data_.pre)),
      by_text_(checked_index(data_)),
      merges_(data_),
      specials_(data_) {
  fill_bytes();
}

void BpeTokenizer::fill_bytes() {
  std::size_t total = 0;
  for (const std::string& text : data_.tokens) total += text.size();
  if (total > std::numeric_limits<uint32_t>::max()) {
    reject("vocabulary too large", "tokens", "less than 4 GiB", std::to_string(total) + " bytes");
  }
  blob_.reserve(total);
  offsets_.reserve(data_.tokens.size() + 1);
  offsets_.push_back(0);
  byte_ids_.fill(-1);
  for (int32_t id = 0; id < std::ssize(data_.tokens); ++id) {
    const std::string& text = data_.tokens[id];
    const std::size_t start = blob_.size();
    if (is_special(data_.types[id])) {
      blob_ += text;
    } else {
      append_from_alphabet(blob_, text);
      // A token written as one raw byte also gives one byte; only the alphabet's letter counts.
      const std::string_view made = std::string_view(blob_).substr(start);
      if (made.size() == 1 && to_byte_alphabet(made) == text) {
        byte_ids_[static_cast<uint8_t>(made[0])] = id;
      }
    }
    offsets_.push_back(static_cast<uint32_t>(blob_.size()));
  }
}

std::string_view BpeTokenizer::bytes(int32_t id) const {
  if (id < 0 || id >= std::ssize(data_.tokens)) return {};
  return std::string_view(blob_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
}

std::vector<int32_t> BpeTokenizer::encode(std::span<const Segment> segments,
                                          EncodeReport* report) const {
  const LiteralRuns joined = join_segments(segments);
  Scratch scratch;
  if (data_.add_bos) scratch.ids.push_back(data_.bos);
  for_each_stretch(
      joined, specials_, [&](std::string_view text) { encode_plain(text, scratch); },
      [&](int32_t id) { scratch.ids.push_back(id); });
  if (report != nullptr) report->dropped_bytes = scratch.dropped_bytes;
  return std::move(scratch.ids);
}

void BpeTokenizer::encode_plain(std::string_view text, Scratch& scratch) const {
  std::string normal;
  if (pretokenizer_.nfc && may_change_in_nfc(text)) {
    normal = to_nfc(text);
    text = normal;
  }
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = pretokenizer_.word_end(text, i);
    encode_word(text.substr(i, end - i), scratch);
    i = end;
  }
}

// The ordinary token that is this word, or -1.
int32_t BpeTokenizer::find_word(std::string_view word) const {
  const std::string text = to_byte_alphabet(word);
  const int32_t id =
      by_text_.find(hash_text(text), [&](int32_t other) { return data_.tokens[other] == text; });
  return id >= 0 && data_.types[id] == TokenType::kNormal ? id : -1;
}

void BpeTokenizer::encode_word(std::string_view word, Scratch& scratch) const {
  if (pretokenizer_.whole_words) {
    const int32_t whole = find_word(word);
    if (whole >= 0) return scratch.ids.push_back(whole);
  }
  auto& symbols = scratch.symbols;
  symbols.clear();
  for (const char character : word) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(character)];
    if (id < 0) {
      ++scratch.dropped_bytes;
      continue;
    }
    const int32_t place = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, place - 1, place + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  merge_symbols(scratch);
  for (int32_t place = 0; place >= 0; place = symbols[place].next) {
    scratch.ids.push_back(symbols[place].id);
  }
}

// The key of the merge of `left` and the symbol behind it; kNotDue if there is none.
uint64_t BpeTokenizer::due_key(const Scratch& scratch, int32_t left) const {
  const auto& symbol = scratch.symbols[left];
  if (symbol.next < 0) return kNotDue;
  const int32_t rank = merges_.rank(symbol.id, scratch.symbols[symbol.next].id);
  return rank < 0 ? kNotDue : static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(left);
}

// O(n log n): every merge takes one symbol away and queues at most two entries. Entries are not
// taken off when a neighbour merges first; the rank names the pair they were made for, so a glance
// tells whether it is still there.
void BpeTokenizer::merge_symbols(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& due = scratch.due;
  due.clear();
  for (int32_t place = 0; place < std::ssize(symbols); ++place) {
    const uint64_t key = due_key(scratch, place);
    if (key != kNotDue) due.add(key);
  }
  due.start();
  for (uint64_t entry = 0; due.pop(entry);) {
    const int32_t place = static_cast<int32_t>(entry & 0xFFFFFFFF);
    const auto [left, right, result] = merges_[entry >> 32];
    auto& symbol = symbols[place];
    if (symbol.id != left || symbol.next < 0 || symbols[symbol.next].id != right) continue;
    symbols[symbol.next].id = -1;
    symbol.id = result;
    symbol.next = symbols[symbol.next].next;
    if (symbol.next >= 0) symbols[symbol.next].previous = place;
    for (const int32_t changed : {symbol.previous, place}) {
      if (changed < 0) continue;
      const uint64_t key = due_key(scratch, changed);
      if (key != kNotDue) due.push(key);
    }
  }
}

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, kAlphabet[static_cast<uint8_t>(byte)]);
  return out;
}

std::string from_byte_alphabet(std::string_view text) {
  std::string out;
  append_from_alphabet(out, text);
  return out;
}

std::unique_ptr<Tokenizer> make_bpe_tokenizer(TokenizerData data) {
  return std::make_unique<BpeTokenizer>(std::move(data));
}

}  // namespace crumb::tokenizer

#include "tokenizer/sentencepiece.h"

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <utility>

#include "tokenizer/literal_runs.h"
#include "tokenizer/piece.h"
#include "tokenizer/reject.h"
#include "tokenizer/sentencepiece_check.h"
#include "tokenizer/sentencepiece_cut.h"
#include "tokenizer/sentencepiece_normalizer.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/unigram.h"

namespace crumb::tokenizer {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";
constexpr std::string_view kUnknownText = " \u2047 ";

using Cut = std::function<std::vector<Piece>(std::string_view)>;

template <class Cutter>
Cut make_cut(const TokenizerData& data) {
  return [cutter = Cutter(data)](std::string_view text) { return cutter.cut(text); };
}

struct ModelKind {
  std::string_view name;
  Cut (*make)(const TokenizerData& data);
};
constexpr ModelKind kKinds[] = {{"t5", make_cut<Unigram>},
                                {"llama", make_cut<MergeCut>},
                                {"spm-word", make_cut<WordCut>},
                                {"spm-char", make_cut<CharacterCut>}};

const ModelKind* find_kind(std::string_view name) {
  for (const ModelKind& kind : kKinds) {
    if (kind.name == name) return &kind;
  }
  return nullptr;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t found = std::min(text.find(from, i), text.size());
    out += text.substr(i, found - i);
    if (found == text.size()) break;
    out += to;
    i = found + from.size();
  }
  return out;
}

bool has_byte_tokens(const TokenizerData& data) {
  return std::find(data.types.begin(), data.types.end(), TokenType::kByte) != data.types.end();
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(TokenizerData data);
  SentencePieceTokenizer(const SentencePieceTokenizer&) = delete;  // cut_ looks into data_

  using Tokenizer::encode;
  std::vector<int32_t> encode(std::span<const Segment> text, EncodeReport* report) const override;
  std::string decode(std::span<const int32_t> ids, bool special) const override;
  std::string_view bytes(int32_t id) const override;
  const TokenizerData& data() const override { return data_; }

 private:
  void append(std::string_view text, std::vector<int32_t>& ids) const;

  TokenizerData data_;
  SpecialTokens control_;
  bool has_bytes_;
  int32_t unknown_;
  std::array<int32_t, 256> byte_ids_{};  // if has_bytes_
  SentencePieceNormalizer normalizer_;
  Cut cut_;
  std::vector<std::string> bytes_;  // [V]
};

// Files that were made from a tokenizer with added tokens may call the unknown one a control token.
TokenizerData with_unknown(TokenizerData data) {
  for (const TokenType type : data.types) {
    if (type == TokenType::kUnknown) return data;
  }
  if (data.unk < 0) reject("no unknown token", "unk", "an id", "-1");
  data.types[static_cast<std::size_t>(data.unk)] = TokenType::kUnknown;
  return data;
}

std::string bytes_of(const TokenizerData& data, std::size_t id) {
  const std::string& text = data.tokens[id];
  switch (data.types[id]) {
    case TokenType::kControl:
      return text;
    case TokenType::kUnknown:
      return std::string(kUnknownText);
    case TokenType::kByte:
      return std::string(1, static_cast<char>(std::stoi(text.substr(3, 2), nullptr, 16)));
    default:
      return replaced(text, kSpaceMark, " ");
  }
}

// What SentencePiece models are before anything reads them.
TokenizerData checked(TokenizerData given) {
  TokenizerData data = with_unknown(std::move(given));
  check_pieces(data);
  check_charsmap(data.sentencepiece.charsmap);
  return data;
}

Cut cut_of(const TokenizerData& data) {
  const ModelKind* kind = find_kind(data.model);
  if (kind == nullptr) reject("unknown kind of model", "model", "llama or t5", data.model);
  return kind->make(data);
}

SentencePieceTokenizer::SentencePieceTokenizer(TokenizerData data)
    : data_(checked(std::move(data))),
      control_(data_, TokenType::kControl),
      has_bytes_(has_byte_tokens(data_)),
      unknown_(static_cast<int32_t>(
          std::find(data_.types.begin(), data_.types.end(), TokenType::kUnknown) -
          data_.types.begin())),
      normalizer_(data_),
      cut_(cut_of(data_)) {
  for (std::size_t id = 0; id < data_.tokens.size(); ++id) {
    bytes_.push_back(bytes_of(data_, id));
    if (data_.types[id] == TokenType::kByte)
      byte_ids_[static_cast<uint8_t>(bytes_.back()[0])] = static_cast<int32_t>(id);
  }
}

// What no piece covers is bytes, or of neighbours one unknown token.
void SentencePieceTokenizer::append(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  const std::string normal = normalizer_.normalized(text);
  bool unknown = false;  // the piece before
  for (const Piece& piece : cut_(normal)) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
    } else if (has_bytes_) {
      for (const char byte : piece.text) ids.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
    } else if (!unknown) {
      ids.push_back(unknown_);
    }
    unknown = piece.id < 0;
  }
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::span<const Segment> segments,
                                                    EncodeReport* report) const {
  const LiteralRuns joined = join_segments(segments);
  std::vector<int32_t> ids;
  if (data_.add_bos) ids.push_back(data_.bos);
  for_each_stretch(
      joined, control_, [&](std::string_view text) { append(text, ids); },
      [&](int32_t id) { ids.push_back(id); });
  if (report != nullptr) report->dropped_bytes = 0;
  return ids;
}

std::string_view SentencePieceTokenizer::bytes(int32_t id) const {
  return id >= 0 && id < size() ? std::string_view(bytes_[static_cast<std::size_t>(id)])
                                : std::string_view();
}

std::string SentencePieceTokenizer::decode(std::span<const int32_t> ids, bool special) const {
  std::string out;
  bool start = data_.sentencepiece.dummy_prefix;  // before the first token that is text
  for (const int32_t id : ids) {
    std::string_view text = bytes(id);
    if (is_control(id)) {
      if (special) out += text;
      continue;
    }
    const bool marked = data_.types[static_cast<std::size_t>(id)] == TokenType::kNormal ||
                        data_.types[static_cast<std::size_t>(id)] == TokenType::kUserDefined;
    if (start && !data_.sentencepiece.space_suffix && marked && text.starts_with(' '))
      text.remove_prefix(1);
    start = false;
    out += text;
  }
  if (data_.sentencepiece.dummy_prefix && data_.sentencepiece.space_suffix && out.ends_with(' '))
    out.pop_back();
  return out;
}

}  // namespace

bool is_sentencepiece(const std::string& model) { return find_kind(model) != nullptr; }

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(TokenizerData data) {
  return std::make_unique<SentencePieceTokenizer>(std::move(data));
}

}  // namespace crumb::tokenizer

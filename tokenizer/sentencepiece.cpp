#include "tokenizer/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <limits>
#include <optional>
#include <stdexcept>
#include <utility>

#include "tokenizer/literal_runs.h"
#include "tokenizer/reject.h"
#include "tokenizer/sentencepiece_check.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/unigram.h"

namespace crumb::tokenizer {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";
constexpr std::string_view kUnknownText = " \u2047 ";

struct ModelKind {
  std::string_view name;
  uint64_t type;  // TrainerSpec.ModelType
};
constexpr ModelKind kKinds[] = {{"t5", 1}, {"llama", 2}, {"spm-word", 3}, {"spm-char", 4}};

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

// Fields of a protocol buffer, in the order written.
class Message {
 public:
  void number(uint32_t field, uint64_t value) {
    varint(field << 3);
    varint(value);
  }
  void real(uint32_t field, float value) {
    varint(field << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 0xFF);
  }
  void text(uint32_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

std::string byte_token(int byte) {
  char text[8];
  std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(byte));
  return text;
}

// What the library knows a control token by. It would take one for a word or character that is
// spelled like it, and then fail over the text it did not count; no normalized text has this byte.
std::string hidden_name(std::size_t id) { return "\xFF" + std::to_string(id); }

bool has_byte_tokens(const TokenizerData& data) {
  return std::find(data.types.begin(), data.types.end(), TokenType::kByte) != data.types.end();
}

void put_piece(Message& model, std::string_view text, float score, TokenType type) {
  Message piece;
  piece.text(1, text);
  piece.real(2, score);
  piece.number(3, static_cast<uint64_t>(type));
  model.text(1, piece.bytes());
}

// ModelProto of sentencepiece_model.proto; the field numbers are its. A model without byte tokens
// gets them behind its own pieces: the library joins neighbouring unknown characters into one piece
// by copying it for each, which takes a minute for a megabyte. As bytes they are apart, and
// append() joins them.
std::string model_proto(const TokenizerData& data, uint64_t type) {
  Message model;
  for (std::size_t id = 0; id < data.tokens.size(); ++id)
    put_piece(model, data.types[id] == TokenType::kControl ? hidden_name(id) : data.tokens[id],
              data.scores[id], data.types[id]);
  if (!has_byte_tokens(data))
    for (int byte = 0; byte < 256; ++byte) put_piece(model, byte_token(byte), 0, TokenType::kByte);
  const SentencePieceOptions& options = data.sentencepiece;
  Message trainer;
  trainer.number(3, type);
  trainer.number(4, data.tokens.size() + (has_byte_tokens(data) ? 0 : 256));
  trainer.number(24, options.space_suffix ? 1 : 0);
  trainer.number(35, 1);  // byte fallback
  model.text(2, trainer.bytes());
  Message normalizer;
  normalizer.text(1, "file");
  if (!options.charsmap.empty()) normalizer.text(2, options.charsmap);
  normalizer.number(3, options.dummy_prefix ? 1 : 0);
  normalizer.number(4, options.remove_extra_spaces ? 1 : 0);
  normalizer.number(5, options.escape_spaces ? 1 : 0);
  model.text(3, normalizer.bytes());
  return model.bytes();
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(TokenizerData data);
  SentencePieceTokenizer(const SentencePieceTokenizer&) = delete;  // control_ looks into data_

  using Tokenizer::encode;
  std::vector<int32_t> encode(std::span<const Segment> text, EncodeReport* report) const override;
  std::string decode(std::span<const int32_t> ids, bool special) const override;
  std::string_view bytes(int32_t id) const override;
  const TokenizerData& data() const override { return data_; }

 private:
  void append(std::string_view text, std::vector<int32_t>& ids) const;
  void append_pieces(std::span<const Unigram::Piece> pieces, std::vector<int32_t>& ids) const;
  std::string normalized(std::span<const int> found) const;

  TokenizerData data_;
  SpecialTokens control_;
  bool has_bytes_;
  int32_t unknown_;
  std::array<int32_t, 256> byte_ids_{};  // if has_bytes_
  sentencepiece::SentencePieceProcessor processor_;
  std::optional<Unigram> unigram_;  // of a unigram model
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

SentencePieceTokenizer::SentencePieceTokenizer(TokenizerData data)
    : data_(with_unknown(std::move(data))),
      control_(data_, TokenType::kControl),
      has_bytes_(has_byte_tokens(data_)),
      unknown_(static_cast<int32_t>(
          std::find(data_.types.begin(), data_.types.end(), TokenType::kUnknown) -
          data_.types.begin())) {
  const ModelKind* kind = find_kind(data_.model);
  if (kind == nullptr) reject("unknown kind of model", "model", "llama or t5", data_.model);
  check_pieces(data_);
  check_charsmap(data_.sentencepiece.charsmap);
  std::string why;
  try {
    const auto status = processor_.LoadFromSerializedProto(model_proto(data_, kind->type));
    if (!status.ok()) why = status.ToString();
  } catch (const std::exception& error) {
    why = error.what();
  }
  if (!why.empty()) reject("the sentencepiece library refuses the model", "model", "success", why);
  for (std::size_t id = 0; id < data_.tokens.size(); ++id) {
    bytes_.push_back(bytes_of(data_, id));
    if (data_.types[id] == TokenType::kByte)
      byte_ids_[static_cast<uint8_t>(bytes_.back()[0])] = static_cast<int32_t>(id);
  }
  if (data_.model == "t5") unigram_.emplace(data_);
}

void SentencePieceTokenizer::append(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  std::vector<int> found;
  const auto status = processor_.Encode(text, &found);
  if (!status.ok()) throw std::runtime_error("sentencepiece: " + status.ToString());
  for (const int id : found)
    if (id < 0 || (id >= size() && (has_bytes_ || id >= size() + 256)))
      throw std::runtime_error("sentencepiece: token id out of range");
  if (unigram_) {
    append_pieces(unigram_->cut(normalized(found)), ids);
    return;
  }
  bool unknown = false;  // the piece before
  for (const int id : found) {
    const bool hidden_byte = id >= size();
    if (!hidden_byte) ids.push_back(id);
    if (hidden_byte && !unknown) ids.push_back(unknown_);
    unknown = hidden_byte;
  }
}

// The text that the library has cut: its pieces, joined.
std::string SentencePieceTokenizer::normalized(std::span<const int> found) const {
  std::string text;
  for (const int id : found) {
    const auto at = static_cast<std::size_t>(id);
    if (id >= size())
      text += static_cast<char>(id - size());
    else
      text += data_.types[at] == TokenType::kByte ? bytes_[at] : data_.tokens[at];
  }
  return text;
}

// What no piece covers is bytes, or of neighbours one unknown token.
void SentencePieceTokenizer::append_pieces(std::span<const Unigram::Piece> pieces,
                                           std::vector<int32_t>& ids) const {
  bool unknown = false;  // the piece before
  for (const Unigram::Piece& piece : pieces) {
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

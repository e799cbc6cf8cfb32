#include "tokenizer/sentencepiece_proto.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <string_view>

namespace crumb::tokenizer {
namespace {

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

}  // namespace

std::string byte_token(int byte) {
  char text[8];
  std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(byte));
  return text;
}

// The field numbers are those of sentencepiece_model.proto.
std::string model_proto(const TokenizerData& data, SentencePieceType type) {
  Message model;
  for (std::size_t id = 0; id < data.tokens.size(); ++id) {
    const bool control = data.types[id] == TokenType::kControl;
    Message piece;
    piece.text(1, control ? "\xFF" + std::to_string(id) : data.tokens[id]);
    piece.real(2, data.scores[id]);
    piece.number(3, static_cast<uint64_t>(data.types[id]));
    model.text(1, piece.bytes());
  }
  const bool bytes =
      std::find(data.types.begin(), data.types.end(), TokenType::kByte) != data.types.end();
  const SentencePieceOptions& options = data.sentencepiece;
  Message trainer;
  trainer.number(3, static_cast<uint64_t>(type));
  trainer.number(4, data.tokens.size());
  trainer.number(24, options.space_suffix ? 1 : 0);
  trainer.number(35, bytes ? 1 : 0);
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

}  // namespace crumb::tokenizer

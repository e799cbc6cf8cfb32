#include "tokenizer/sentencepiece_normalizer.h"

#include <limits>
#include <set>
#include <stdexcept>
#include <vector>

#include "tokenizer/piece.h"
#include "tokenizer/reject.h"
#include "tokenizer/sentencepiece_proto.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer {
namespace {

constexpr std::string_view kSpaceMark = "\u2581", kReplacement = "\uFFFD";
constexpr int kFirstByte = 1;  // the carrier's token of byte 0

void add(TokenizerData& data, std::string_view text, TokenType type) {
  data.tokens.emplace_back(text);
  data.types.push_back(type);
  data.scores.push_back(0);
}

// The library gives pieces, not the text that it cut. A model of characters whose pieces are the
// characters of the given one, and bytes for all others, gives it in the fewest steps. User-defined
// symbols are kept: the normalizer leaves them as they are.
TokenizerData carrier_of(const TokenizerData& data) {
  TokenizerData carrier;
  carrier.sentencepiece = data.sentencepiece;
  add(carrier, "<unk>", TokenType::kUnknown);
  for (int byte = 0; byte < 256; ++byte) add(carrier, byte_token(byte), TokenType::kByte);
  std::set<std::string_view> taken;
  for (std::size_t id = 0; id < data.tokens.size(); ++id) {
    if (data.types[id] != TokenType::kUserDefined) continue;
    add(carrier, data.tokens[id], TokenType::kUserDefined);
    taken.insert(data.tokens[id]);
  }
  const auto add_character = [&](std::string_view text) {
    if (taken.insert(text).second) add(carrier, text, TokenType::kNormal);
  };
  add_character(kSpaceMark);
  add_character(kReplacement);
  for (std::size_t id = 0; id < data.tokens.size(); ++id) {
    const std::string_view piece = data.tokens[id];
    if (data.types[id] == TokenType::kNormal && piece.size() == character_bytes(piece[0]))
      add_character(piece);
  }
  return carrier;
}

}  // namespace

LibraryNormalizer::LibraryNormalizer(const TokenizerData& data) : carrier_(carrier_of(data)) {
  std::string why;
  try {
    const auto status =
        processor_.LoadFromSerializedProto(model_proto(carrier_, SentencePieceType::kCharacter));
    if (!status.ok()) why = status.ToString();
  } catch (const std::exception& error) {
    why = error.what();
  }
  if (!why.empty()) reject("the sentencepiece library refuses the model", "model", "success", why);
}

std::string LibraryNormalizer::normalized(std::string_view text) const {
  std::vector<int> ids;
  const auto status = processor_.Encode(text, &ids);
  if (!status.ok()) throw std::runtime_error("sentencepiece: " + status.ToString());
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const int id : ids) {
    if (id < 0 || id >= std::ssize(carrier_.tokens))
      throw std::runtime_error("sentencepiece: token id out of range");
    if (id >= kFirstByte && id < kFirstByte + 256)
      out += static_cast<char>(id - kFirstByte);
    else
      out += carrier_.tokens[static_cast<std::size_t>(id)];
  }
  return out;
}

SentencePieceNormalizer::SentencePieceNormalizer(const TokenizerData& data)
    : options_(data.sentencepiece), symbols_(data, TokenType::kUserDefined) {
  if (!options_.charsmap.empty()) library_.emplace(data);
}

std::string SentencePieceNormalizer::normalized(std::string_view text) const {
  std::string out = library_ ? library_->normalized(text) : marked(text);
  if (out.size() > static_cast<std::size_t>(std::numeric_limits<int32_t>::max())) {
    throw std::length_error("tokenizer: text too long (encode: expected less than 2 GiB, found " +
                            std::to_string(out.size()) + " bytes when normalized)");
  }
  return out;
}

// What the text at `at` becomes, and how many of its bytes that is: a user-defined symbol, a
// character, or U+FFFD for a byte of neither.
std::string_view SentencePieceNormalizer::unit_at(std::string_view text, std::size_t at,
                                                  std::size_t& bytes) const {
  const SpecialTokens::Match symbol = symbols_.longest_at(text, at);
  if (symbol.id >= 0) return text.substr(at, bytes = symbol.length);
  const CodePoint found = code_point_at(text, at);
  bytes = static_cast<std::size_t>(found.length);
  return found.value == kNoCodePoint ? kReplacement : text.substr(at, bytes);
}

std::string SentencePieceNormalizer::marked(std::string_view text) const {
  const std::string_view space = options_.escape_spaces ? kSpaceMark : " ";
  const bool trim = options_.remove_extra_spaces;
  std::size_t at = 0, bytes = 0;
  while (trim && at < text.size() && unit_at(text, at, bytes) == " ") at += bytes;
  std::string out;
  if (at == text.size()) return out;
  out.reserve(text.size() + text.size() / 2);
  if (options_.dummy_prefix && !options_.space_suffix) out += space;
  bool after_space = trim;
  for (; at < text.size(); at += bytes) {
    std::string_view unit = unit_at(text, at, bytes);
    while (after_space && unit.starts_with(' ')) unit.remove_prefix(1);
    for (const char byte : unit)
      if (byte == ' ')
        out += space;
      else
        out += byte;
    if (!unit.empty()) after_space = trim && unit.ends_with(' ');
  }
  while (trim && out.ends_with(space)) out.resize(out.size() - space.size());
  if (options_.dummy_prefix && options_.space_suffix) out += space;
  return out;
}

}  // namespace crumb::tokenizer

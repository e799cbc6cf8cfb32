// Text <-> token ids. Includes nothing of ours; engine/ fills TokenizerData from a model file.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::tokenizer {

// Token types, with the numbers GGUF gives them.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

// How a SentencePiece model treats text before it is cut; ignored by byte-level BPE.
struct SentencePieceOptions {
  bool dummy_prefix = false;         // a space before the text
  bool remove_extra_spaces = false;  // at both ends, and runs become one
  bool escape_spaces = true;         // a space becomes U+2581
  bool space_suffix = false;         // words end with their space instead of beginning with it
  std::string charsmap;              // precompiled normalizer, empty for none
};

struct TokenizerData {
  std::string model;  // "gpt2": byte-level BPE; others: sentencepiece.h
  std::string pre;  // pre-tokenizer: "smollm" (digits one by one, then GPT-2's split), "gpt-2", ...
  std::vector<std::string> tokens;             // [V], in the byte-level alphabet for "gpt2"
  std::vector<TokenType> types;                // [V]
  std::vector<float> scores;                   // [V] or empty
  std::vector<std::array<int32_t, 3>> merges;  // left id, right id, result id; rank = index
  int32_t bos = -1, eos = -1, eot = -1, unk = -1, pad = -1;
  bool add_bos = false;
  SentencePieceOptions sentencepiece;
};

// A run of text. Only where `literal` is true (a template's own text, or `--special` input) can the
// spelling of a control token become that token; text of a user never does.
struct Segment {
  std::string text;
  bool literal = false;
};

// What encode could not represent: bytes the vocabulary has no token for are dropped and counted.
// Each encode writes it anew.
struct EncodeReport {
  int64_t dropped_bytes = 0;
};

// Immutable after construction; all functions are thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Linear in the text's length (n log n merging within a word), no recursion, any bytes accepted.
  // Segments are encoded as one text: merging crosses their borders. bos is added if the data says
  // so, also where the text spells one. Throws std::length_error for texts of 2 GiB or more.
  virtual std::vector<int32_t> encode(std::span<const Segment> text,
                                      EncodeReport* report = nullptr) const = 0;
  // The bytes of one token; empty for an id out of range. Control tokens give their text.
  virtual std::string_view bytes(int32_t id) const = 0;
  virtual const TokenizerData& data() const = 0;

  std::vector<int32_t> encode(std::string_view text, bool literal,
                              EncodeReport* report = nullptr) const;
  // Concatenated bytes; control tokens are left out unless `special`. May hold half characters.
  virtual std::string decode(std::span<const int32_t> ids, bool special) const;
  int64_t size() const { return static_cast<int64_t>(data().tokens.size()); }
  bool is_control(int32_t id) const;
};

// Throws std::invalid_argument if the kind or pre-tokenizer is unknown (naming it) or the data is
// inconsistent.
std::unique_ptr<Tokenizer> make_tokenizer(TokenizerData data);

}  // namespace crumb::tokenizer

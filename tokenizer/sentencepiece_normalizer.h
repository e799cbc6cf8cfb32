// What a SentencePiece model makes of a text before it is cut: its replacements (the charsmap),
// spaces and space marks, U+FFFD for a malformed byte. The replacements are the sentencepiece
// library's matter; a model without them (Llama, Mistral, Gemma) is done here, in a twentieth of
// its time, and it is the twin in the tests.
#pragma once
#include <sentencepiece_processor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

// The library's normalizer, for any model that check_pieces and check_charsmap have passed.
class LibraryNormalizer {
 public:
  // Throws std::invalid_argument if the library refuses the model all the same.
  explicit LibraryNormalizer(const TokenizerData& data);
  // Thread-safe.
  std::string normalized(std::string_view text) const;

 private:
  TokenizerData carrier_;
  sentencepiece::SentencePieceProcessor processor_;
};

class SentencePieceNormalizer {
 public:
  // Keeps views of data.tokens, which must outlive this. Throws as LibraryNormalizer does.
  explicit SentencePieceNormalizer(const TokenizerData& data);
  // Thread-safe. Throws std::length_error if the result has 2 GiB or more.
  std::string normalized(std::string_view text) const;

 private:
  std::string marked(std::string_view text) const;
  std::string_view unit_at(std::string_view text, std::size_t at, std::size_t& bytes) const;

  SentencePieceOptions options_;
  SpecialTokens symbols_;
  std::optional<LibraryNormalizer> library_;  // if there is a charsmap
};

}  // namespace crumb::tokenizer

// Tokenizers that lie in files of their own: SentencePiece's tokenizer.model and Hugging Face's
// tokenizer.json.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "models/vocab.h"

namespace crumb::models {

// A ModelProto (sentencepiece_model.proto): pieces, kind and options. No bos is added: the file
// does not say. FormatError: damaged protocol buffers, sizes out of range, what validate() refuses.
Vocab read_sentencepiece_model(std::span<const uint8_t> bytes, const std::string& file);

// Byte-level BPE whose splits are known (GPT-2, SmolLM, Qwen2, Llama 3), and SentencePiece's BPE
// written as merges: a token's score is then minus the rank of the first merge that makes it.
// Special added tokens are control tokens. FormatError names what is not supported.
Vocab read_tokenizer_json(std::string_view text, const std::string& file);

// The model of a SentencePiece vocabulary as a file that read_sentencepiece_model() reads back.
std::string write_sentencepiece_model(const Vocab& vocab);

// A split of byte-level BPE as tokenizer.json writes it: a regular expression before ByteLevel, or
// digits cut out before ByteLevel's own split, or that alone.
struct KnownSplit {
  std::string_view name, regex;
  bool digits, nfc;  // nfc: the normalizer that goes with it
};
// nullptr if there is none of that name.
const KnownSplit* find_split(std::string_view name);

// The tokenizer of a bare tokenizer file, told apart by its first bytes; nothing if it is neither.
struct TokenizerFile {
  Vocab vocab;
  // A tokenizer.model: its library makes control tokens from no text, whoever asks.
  bool plain_text_only = false;
};
std::optional<TokenizerFile> open_tokenizer_file(const std::string& path);

}  // namespace crumb::models

// ModelProto of sentencepiece_model.proto, the form in which the sentencepiece library takes a
// model.
#pragma once
#include <cstdint>
#include <string>

#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

// TrainerSpec.ModelType.
enum class SentencePieceType : uint64_t { kUnigram = 1, kBpe = 2, kWord = 3, kCharacter = 4 };

// A control token gets a name that no normalized text can spell: the library would take it for a
// word or character that is spelled like it, and then fail over the text it did not count. Byte
// fallback is on if the data has byte tokens.
std::string model_proto(const TokenizerData& data, SentencePieceType type);

// <0x41> for 65.
std::string byte_token(int byte);

}  // namespace crumb::tokenizer

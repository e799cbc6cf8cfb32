// SentencePiece models (Kudo and Richardson, "SentencePiece", 2018): BPE, unigram, word and
// character.
//
// Normalising is the sentencepiece library's where a model replaces characters
// (sentencepiece_normalizer.h); the cuts are in sentencepiece_cut.h and unigram.h and give the
// library's ids (docs/decisions/0010-sentencepiece-cuts.md says why). The library never gets a
// file's bytes: its model is written anew from checked parts (sentencepiece_check.h).
#pragma once
#include <memory>

#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

// Whether `model` names one of these: "llama" (BPE), "t5" (unigram), "spm-word", "spm-char".
bool is_sentencepiece(const std::string& model);

// What make_tokenizer gives for these models. Details of the contract that are this model's own:
// - control tokens are found in literal runs only, leftmost and longest; user-defined symbols are
//   found in any text, as the library does;
// - each stretch between two such control tokens is normalised and encoded for itself, so a dummy
//   space is put before each of them if the model asks for one;
// - malformed bytes become U+FFFD, as the library does; nothing is ever dropped;
// - decode leaves the dummy space at the start out.
// If no token has the type kUnknown, token data.unk counts as that. Throws std::invalid_argument;
// encode throws std::length_error for texts of 2 GiB or more.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(TokenizerData data);

}  // namespace crumb::tokenizer

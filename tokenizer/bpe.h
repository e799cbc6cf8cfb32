// Byte-level BPE (GPT-2): text is cut into words, a word into bytes, and of all neighbouring pairs
// the one with the lowest rank (the leftmost of equals) is merged until none is left.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

// Bytes in the alphabet that vocabularies write them in: printable Latin-1 stands for itself, the
// 68 other byte values for U+0100, U+0101, ... in ascending order (a space is U+0120).
std::string to_byte_alphabet(std::string_view bytes);

// The inverse; a text with a character outside the alphabet is given back as it is, as the
// reference library does (tokens added to a vocabulary are often written plainly).
std::string from_byte_alphabet(std::string_view text);

// What make_tokenizer gives for model "gpt2". Details of the contract that are this model's own:
// - control and user-defined tokens are raw text, every other token is in the byte alphabet;
// - in literal runs the leftmost, of those the longest, control or user-defined token is taken;
//   adjacent literal segments are one run; all between two such tokens is cut into words as one
//   text, literal or not;
// - bytes without a token are dropped before merging: their neighbours may then merge;
// - merges must join the texts of their two parts, and none may make a control token, so that no
//   text of a user can. Of merges with the same parts the first counts.
// Takes data whose sizes and token ids make_tokenizer has checked; what is particular to BPE is
// checked here. Throws std::invalid_argument if the data is inconsistent; encode throws
// std::length_error for texts of 2 GiB or more.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(TokenizerData data);

}  // namespace crumb::tokenizer

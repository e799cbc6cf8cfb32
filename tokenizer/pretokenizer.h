// Pre-tokenizers: how a text is cut into words before merging. By hand, linear, no recursion; each
// gives exactly the pieces of the regular expression it stands for. Bytes that are not UTF-8 count
// as one character each, of class "other" (like a sign or an emoji).
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace crumb::tokenizer {

// The end of the word that starts at text[begin], begin < text.size(): in (begin, text.size()].
// Walking a whole text so costs time linear in its length.
using WordEnd = std::size_t (*)(std::string_view text, std::size_t begin);

// By the name that GGUF gives it in tokenizer.ggml.pre:
//   gpt-2   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   smollm  every \p{N} alone first, then gpt-2 on each stretch between them
//   qwen2   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|
//           ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+   (on text in NFC)
//   llama-bpe  qwen2 with \p{N}{1,3}, not normalised; a word that is a token is not cut further
// nullptr if there is none of that name.
struct Pretokenizer {
  std::string_view name;
  WordEnd word_end;
  bool nfc = false;          // text is brought to normal form C first
  bool whole_words = false;  // a word that is itself a token is taken as such, merges or not
};
const Pretokenizer* find_pretokenizer(std::string_view name);

// "gpt-2, llama-bpe, qwen2, smollm": for messages.
std::string pretokenizer_names();

}  // namespace crumb::tokenizer

// A tokenizer's data as stored in a model file. models/ only checks and stores it; tokenizer/ runs
// it.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace crumb::models {

// Token types, with the numbers GGUF gives them.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Vocab {
  // "gpt2": byte-level BPE; "llama", "t5", "spm-word", "spm-char": SentencePiece (BPE, unigram,
  // word, character)
  std::string model;
  std::string pre;                  // pre-tokenizer: "smollm", "gpt-2", "qwen2", ...
  std::vector<std::string> tokens;  // [V], text as in the file (byte-level alphabet for gpt2)
  std::vector<TokenType> types;     // [V]
  std::vector<float> scores;        // [V] or empty
  std::vector<std::array<int32_t, 3>> merges;  // left id, right id, result id; rank = index
  int32_t bos = -1, eos = -1, eot = -1, unk = -1, pad = -1;  // -1: none
  bool add_bos = false;
  bool add_space_prefix = false;  // SentencePiece: text starts with a space
  // SentencePiece only; what GGUF's "llama" models have by default.
  bool remove_extra_spaces = false, escape_spaces = true, space_suffix = false;
  std::string charsmap;       // precompiled normalizer
  std::vector<int32_t> stop;  // further end-of-generation tokens
};

inline constexpr int64_t kMaxVocab = 1 << 20;
inline constexpr int64_t kMaxMerges = 1 << 22;
inline constexpr int64_t kMaxTokenBytes = 1 << 16;

inline constexpr int64_t kMaxCharsmapBytes = 4 << 20;

bool is_sentencepiece(const Vocab& vocab);

// Tokens that end a turn whatever a file's eos says, and are in none of its fields: appended to
// `stop`.
void add_known_stops(Vocab& vocab);

// Throws FormatError: sizes of side arrays, ids in range, token(left) + token(right) ==
// token(result), finite scores, byte tokens of the form <0xHH>.
void validate(const Vocab& vocab, const std::string& file);

}  // namespace crumb::models

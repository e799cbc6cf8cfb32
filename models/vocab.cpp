#include "models/vocab.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "models/errors.h"
#include "models/text.h"

namespace crumb::models {
namespace {

[[noreturn]] void fail(const std::string& file, const std::string& what,
                       const std::string& expected, const std::string& found) {
  throw FormatError("invalid " + what + " (" + file + " in tokenizer: expected " + expected +
                    ", found " + found + ")");
}

bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
}

void check_tokens(const Vocab& vocab, const std::string& file) {
  const auto V = vocab.tokens.size();
  if (V == 0 || V > static_cast<std::size_t>(kMaxVocab))
    fail(file, "number of tokens", "1.." + std::to_string(kMaxVocab), std::to_string(V));
  if (vocab.types.size() != V)
    fail(file, "token types", std::to_string(V), std::to_string(vocab.types.size()));
  if (!vocab.scores.empty() && vocab.scores.size() != V)
    fail(file, "token scores", std::to_string(V), std::to_string(vocab.scores.size()));
  for (std::size_t id = 0; id < V; ++id) {
    const std::string& text = vocab.tokens[id];
    if (text.size() > static_cast<std::size_t>(kMaxTokenBytes))
      fail(file, "token " + std::to_string(id),
           "at most " + std::to_string(kMaxTokenBytes) + " bytes", std::to_string(text.size()));
    const auto type = static_cast<int>(vocab.types[id]);
    if (type < 1 || type > 6)
      fail(file, "type of token " + std::to_string(id), "1..6", std::to_string(type));
    if (vocab.types[id] == TokenType::kByte &&
        !(text.size() == 6 && text.starts_with("<0x") && is_hex(text[3]) && is_hex(text[4]) &&
          text[5] == '>'))
      fail(file, "byte token " + std::to_string(id), "<0xHH>", printable(text));
  }
  for (std::size_t id = 0; id < vocab.scores.size(); ++id)
    if (!std::isfinite(vocab.scores[id]))
      fail(file, "score of token " + std::to_string(id), "a finite number", "NaN or infinity");
}

void check_id(int32_t id, int32_t low, std::size_t V, const std::string& what,
              const std::string& file) {
  if (id < low || (id >= 0 && static_cast<std::size_t>(id) >= V))
    fail(file, what, std::to_string(low) + ".." + std::to_string(V - 1), std::to_string(id));
}

void check_merges(const Vocab& vocab, const std::string& file) {
  if (vocab.merges.size() > static_cast<std::size_t>(kMaxMerges))
    fail(file, "number of merges", "at most " + std::to_string(kMaxMerges),
         std::to_string(vocab.merges.size()));
  for (std::size_t rank = 0; rank < vocab.merges.size(); ++rank) {
    // The message is only made for a bad id: this loop is a fifth of the time to open a checkpoint.
    for (const int32_t id : vocab.merges[rank])
      if (id < 0 || static_cast<std::size_t>(id) >= vocab.tokens.size())
        check_id(id, 0, vocab.tokens.size(), "token of merge " + std::to_string(rank), file);
    const auto& [left, right, result] = vocab.merges[rank];
    const std::string_view a = vocab.tokens[static_cast<std::size_t>(left)];
    const std::string_view b = vocab.tokens[static_cast<std::size_t>(right)];
    const std::string_view ab = vocab.tokens[static_cast<std::size_t>(result)];
    if (ab.size() != a.size() + b.size() || !ab.starts_with(a) || !ab.ends_with(b))
      fail(file, "merge " + std::to_string(rank), printable(a) + " + " + printable(b),
           printable(ab));
  }
}

constexpr std::string_view kSentencePiece[] = {"llama", "t5", "spm-word", "spm-char"};

constexpr std::string_view kEndOfTurn[] = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>",
                                           "<|end|>",    "<end_of_turn>", "<|end_of_text|>"};

}  // namespace

bool is_sentencepiece(const Vocab& vocab) {
  return std::find(std::begin(kSentencePiece), std::end(kSentencePiece), vocab.model) !=
         std::end(kSentencePiece);
}

void add_known_stops(Vocab& vocab) {
  for (std::size_t i = 0; i < vocab.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const bool ends = vocab.types[i] == TokenType::kControl &&
                      std::find(std::begin(kEndOfTurn), std::end(kEndOfTurn), vocab.tokens[i]) !=
                          std::end(kEndOfTurn);
    if (ends && id != vocab.eos && id != vocab.eot) vocab.stop.push_back(id);
  }
}

void validate(const Vocab& vocab, const std::string& file) {
  if (vocab.model != "gpt2" && !is_sentencepiece(vocab))
    fail(file, "tokenizer model", "gpt2, llama or t5", printable(vocab.model));
  if (is_sentencepiece(vocab) && vocab.scores.empty())
    fail(file, "token scores", std::to_string(vocab.tokens.size()), "none");
  if (!is_sentencepiece(vocab) && (vocab.remove_extra_spaces || !vocab.escape_spaces ||
                                   vocab.space_suffix || !vocab.charsmap.empty()))
    fail(file, "tokenizer options", "none of SentencePiece's", "some");
  if (vocab.charsmap.size() > static_cast<std::size_t>(kMaxCharsmapBytes))
    fail(file, "normalizer", "at most " + std::to_string(kMaxCharsmapBytes) + " bytes",
         std::to_string(vocab.charsmap.size()));
  if (vocab.pre.size() > 256 || !valid_utf8(vocab.pre))
    fail(file, "pre-tokenizer", "a UTF-8 name of at most 256 bytes", printable(vocab.pre));
  check_tokens(vocab, file);
  check_merges(vocab, file);
  const struct {
    const char* name;
    int32_t id;
  } special[] = {{"bos token", vocab.bos},
                 {"eos token", vocab.eos},
                 {"eot token", vocab.eot},
                 {"unk token", vocab.unk},
                 {"pad token", vocab.pad}};
  for (const auto& token : special) check_id(token.id, -1, vocab.tokens.size(), token.name, file);
  for (const int32_t id : vocab.stop) check_id(id, 0, vocab.tokens.size(), "stop token", file);
}

}  // namespace crumb::models

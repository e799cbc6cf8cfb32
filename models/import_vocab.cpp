#include <algorithm>
#include <unordered_map>

#include "models/import.h"
#include "models/text.h"

namespace crumb::models {
namespace {

using IdOf = std::unordered_map<std::string_view, int32_t>;

// "left right" -> ids of left, right and left + right.
std::array<int32_t, 3> merge_ids(const GgufFile& gguf, std::string_view merge, const IdOf& ids,
                                 std::string& joined) {
  const std::string key = "tokenizer.ggml.merges";
  // From 1: a token may itself begin with a space.
  const auto space = merge.find(' ', 1);
  if (space == std::string_view::npos || space + 1 == merge.size())
    gguf.fail(key, "two tokens with a space between", printable(merge));
  const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
  joined.assign(left).append(right);
  std::array<int32_t, 3> triple{};
  const std::string_view parts[] = {left, right, joined};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto found = ids.find(parts[i]);
    if (found == ids.end())
      gguf.fail(key, "tokens of the vocabulary", printable(parts[i]) + " in " + printable(merge));
    triple[i] = found->second;
  }
  return triple;
}

void import_merges(const GgufFile& gguf, Vocab& vocab) {
  const auto merges = gguf.strings("tokenizer.ggml.merges", kMaxMerges);
  if (!merges) {
    if (vocab.model == "gpt2") gguf.fail("tokenizer.ggml.merges", "an array of string", "nothing");
    return;
  }
  IdOf ids;
  ids.reserve(vocab.tokens.size());
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id)
    ids.emplace(vocab.tokens[id], static_cast<int32_t>(id));
  vocab.merges.reserve(merges->size());
  std::string joined;
  for (const std::string_view merge : *merges)
    vocab.merges.push_back(merge_ids(gguf, merge, ids, joined));
}

void import_special(const GgufFile& gguf, Vocab& vocab) {
  const struct {
    const char* key;
    int32_t Vocab::*member;
  } special[] = {{"tokenizer.ggml.bos_token_id", &Vocab::bos},
                 {"tokenizer.ggml.eos_token_id", &Vocab::eos},
                 {"tokenizer.ggml.eot_token_id", &Vocab::eot},
                 {"tokenizer.ggml.unknown_token_id", &Vocab::unk},
                 {"tokenizer.ggml.padding_token_id", &Vocab::pad}};
  const auto V = static_cast<int64_t>(vocab.tokens.size());
  const auto id_of = [&](const char* key) {
    const auto id = gguf.integer(key);
    if (id && (*id < 0 || *id >= V))
      gguf.fail(key, "0.." + std::to_string(V - 1), std::to_string(*id));
    return static_cast<int32_t>(id.value_or(-1));
  };
  for (const auto& token : special) vocab.*token.member = id_of(token.key);
  if (const int32_t eom = id_of("tokenizer.ggml.eom_token_id"); eom >= 0) vocab.stop.push_back(eom);
  add_known_stops(vocab);
}

// Converters write the spaces of a SentencePiece model's added tokens plainly, where the model has
// its mark.
void restore_space_marks(Vocab& vocab) {
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id) {
    if (vocab.types[id] != TokenType::kUserDefined) continue;
    std::string& text = vocab.tokens[id];
    for (auto at = text.find(' '); at != std::string::npos; at = text.find(' ', at))
      text.replace(at, 1, "\u2581");
  }
}

}  // namespace

Vocab import_vocab(const GgufFile& gguf) {
  Vocab vocab;
  const auto model = gguf.text("tokenizer.ggml.model");
  if (!model) gguf.fail("tokenizer.ggml.model", "gpt2 or llama", "nothing");
  vocab.model = *model;
  vocab.pre = gguf.text("tokenizer.ggml.pre").value_or("default");
  const auto tokens = gguf.strings("tokenizer.ggml.tokens", kMaxVocab);
  if (!tokens) gguf.fail("tokenizer.ggml.tokens", "an array of string", "nothing");
  vocab.tokens.assign(tokens->begin(), tokens->end());
  const auto same_length = [&](const char* key, std::size_t size) {
    if (size != tokens->size())
      gguf.fail(key, std::to_string(tokens->size()) + " elements as tokens has",
                std::to_string(size));
  };
  vocab.types.assign(tokens->size(), TokenType::kNormal);
  if (const auto types = gguf.integers("tokenizer.ggml.token_type", kMaxVocab)) {
    same_length("tokenizer.ggml.token_type", types->size());
    for (std::size_t i = 0; i < types->size(); ++i) {
      const int32_t type = (*types)[i];
      if (type < 1 || type > 6)
        gguf.fail("tokenizer.ggml.token_type", "1..6",
                  std::to_string(type) + " for token " + std::to_string(i));
      vocab.types[i] = static_cast<TokenType>(type);
    }
  }
  if (auto scores = gguf.reals("tokenizer.ggml.scores", kMaxVocab)) {
    same_length("tokenizer.ggml.scores", scores->size());
    vocab.scores = std::move(*scores);
  } else if (is_sentencepiece(vocab)) {
    gguf.fail("tokenizer.ggml.scores", "an array of f32", "nothing");
  }
  import_merges(gguf, vocab);
  import_special(gguf, vocab);
  const bool sentencepiece = is_sentencepiece(vocab);
  vocab.add_bos = gguf.boolean("tokenizer.ggml.add_bos_token").value_or(sentencepiece);
  vocab.add_space_prefix = gguf.boolean("tokenizer.ggml.add_space_prefix").value_or(sentencepiece);
  if (sentencepiece) {
    restore_space_marks(vocab);
    vocab.remove_extra_spaces =
        gguf.boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
    vocab.charsmap = gguf.bytes("tokenizer.ggml.precompiled_charsmap", kMaxCharsmapBytes)
                         .value_or(std::string());
  }
  if (vocab.add_bos && vocab.bos < 0)
    gguf.fail("tokenizer.ggml.bos_token_id", "a token to add", "nothing");
  validate(vocab, gguf.file());
  return vocab;
}

}  // namespace crumb::models

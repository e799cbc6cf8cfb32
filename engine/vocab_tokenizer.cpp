#include "engine/vocab_tokenizer.h"

namespace crumb {

std::unique_ptr<tokenizer::Tokenizer> tokenizer_of(const models::Vocab& vocab) {
  tokenizer::TokenizerData data;
  data.model = vocab.model;
  data.pre = vocab.pre;
  data.tokens = vocab.tokens;
  for (const auto type : vocab.types) data.types.push_back(static_cast<tokenizer::TokenType>(type));
  data.scores = vocab.scores;
  data.merges = vocab.merges;
  data.bos = vocab.bos;
  data.eos = vocab.eos;
  data.eot = vocab.eot;
  data.unk = vocab.unk;
  data.pad = vocab.pad;
  data.add_bos = vocab.add_bos;
  data.sentencepiece = {vocab.add_space_prefix, vocab.remove_extra_spaces, vocab.escape_spaces,
                        vocab.space_suffix, vocab.charsmap};
  return tokenizer::make_tokenizer(std::move(data));
}

}  // namespace crumb

// Runs a tokenizer on texts that are hard on it.
#pragma once
#include <stdexcept>

#include "engine/vocab_tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {

// A tokenizer may refuse the vocabulary. If it does not, every text gives ids in range, which can
// be decoded.
inline void use_vocabulary(const models::Vocab& vocab) {
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  try {
    tokenizer = tokenizer_of(vocab);
  } catch (const std::invalid_argument&) {
    return;
  }
  constexpr std::string_view kTexts[] = {"Hello  the world", "a\xff\xf0\x9f\x98 \xc3\xa9\n\n 12",
                                         "<s></s><|im_end|><0x41>"};
  for (const std::string_view text : kTexts)
    for (const bool literal : {false, true}) {
      const auto ids = tokenizer->encode(text, literal);
      for (const int32_t id : ids)
        if (id < 0 || id >= tokenizer->size()) finding("a token id out of range");
      if (!literal)
        for (std::size_t i = vocab.add_bos ? 1 : 0; i < ids.size(); ++i)
          if (tokenizer->is_control(ids[i])) finding("a control token from plain text");
      tokenizer->decode(ids, literal);
    }
}

}  // namespace crumb::fuzz
